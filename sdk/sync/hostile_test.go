package sync_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/hostile"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/sync"
)

// An index that refers to an image may contain it.
func TestWhatRefersToAnImageContainsIt(t *testing.T) {
	s, from, to := store{}, local(t), serve(t)
	image := s.image(s.layer("a"))
	index := v1.Index{MediaType: v1.MediaTypeImageIndex, ArtifactType: "x/y", Manifests: []v1.Descriptor{image}, Subject: &image}
	index.SchemaVersion = 2
	around := s.encode(index.MediaType, index)
	s.push(t, from, "app", image, "v1")
	s.push(t, from, "app", around)
	_, err := sync.Run(t.Context(), from, []sync.To{{Registry: to}}, sync.Selection{Patterns: []string{"app"}, Referrers: true}, nil)
	must(t, err)
	_, err = to.open(t, "app").Resolve(t.Context(), string(around.Digest))
	must(t, err)
}

// Each of seven indexes names the next one forty times.
func TestIndexesThatNameAChildManyTimes(t *testing.T) {
	s, from, to := store{}, local(t), serve(t)
	root := s.image(s.layer("a"))
	for range 7 {
		root = s.index(slices.Repeat([]v1.Descriptor{root}, 40)...)
	}
	s.push(t, from, "app", root, "v1")
	report, err := sync.Run(t.Context(), from, []sync.To{{Registry: to}}, sync.Selection{Patterns: []string{"app"}}, nil)
	if err != nil || report.Total.Sent != 10 {
		t.Errorf("got %+v, %v", report, err)
	}
}

// The lists of referrers are the registry's affair, though they have tags.
func TestPruneLeavesTheListsOfReferrers(t *testing.T) {
	s, from := store{}, local(t)
	image := s.image(s.layer("a"))
	s.push(t, from, "app", image, "v1")
	s.push(t, from, "app", s.referrer(image, "signature"))
	srv := httptest.NewServer(hostile.NewRegistry(&hostile.Options{NoReferrers: true}))
	defer srv.Close()
	to, err := remote.New(srv.Listener.Addr().String(), nil)
	must(t, err)
	for range 2 {
		_, err := sync.Run(t.Context(), from, []sync.To{{Registry: to}}, sync.Selection{Patterns: []string{"app"}, Referrers: true, Prune: true}, nil)
		must(t, err)
		if tags := tagsOf(t, to, "app"); len(tags) != 2 {
			t.Errorf("got %q", tags)
		}
	}
}

func TestPruneOfATagThatHasMoved(t *testing.T) {
	s, from, to := store{}, local(t), serve(t)
	s.push(t, from, "app", s.image(s.layer("a")), "v1")
	s.push(t, to.layout, "app", s.image(s.layer("a")), "v2")
	places := []sync.To{{Registry: to}}
	plan, err := sync.Make(t.Context(), from, places, sync.Selection{Patterns: []string{"app"}, Prune: true})
	must(t, err)
	s.push(t, to.layout, "app", s.image(s.layer("b")), "v2")
	_, err = sync.Apply(t.Context(), from, places, plan, nil)
	if tags := tagsOf(t, to.layout, "app"); !errors.Is(err, berth.ErrPreconditionFailed) || len(tags) != 2 {
		t.Errorf("got %v, %q", err, tags)
	}
	_, err = sync.Make(t.Context(), from, places, sync.Selection{Patterns: []string{"app"}, Prune: true, PruneMax: -1})
	if !errors.Is(err, sync.ErrTooMany) {
		t.Errorf("where none may be removed: %v", err)
	}
	_, err = sync.Make(t.Context(), from, places, sync.Selection{Patterns: []string{"app:v1"}, Prune: true, PruneMax: -1})
	must(t, err)
}

func TestAJournalThatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	must(t, os.Symlink(filepath.Join(dir, "elsewhere"), link))
	for _, path := range []string{dir, link} {
		if memory, err := sync.OpenMemory(path); err == nil {
			memory.Close()
			t.Error(fmt.Sprint(path, " was taken"))
		}
	}
}

// Some registries list all tags, whichever they are to begin after.
func TestCompanionsAtARegistryThatListsAllTags(t *testing.T) {
	s, from := store{}, hostile.NewRegistry(nil)
	image := s.image(s.layer("a"))
	signature := "sha256-" + image.Digest.Encoded() + ".sig"
	for _, tag := range []string{"latest", signature, "v1"} {
		from.PutManifest("app", tag, image.MediaType, []byte(s[image.Digest]))
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.RawQuery = ""
		from.ServeHTTP(w, r)
	}))
	defer srv.Close()
	registry, err := remote.New(srv.Listener.Addr().String(), nil)
	must(t, err)
	plan, err := sync.Make(t.Context(), registry, []sync.To{{Registry: serve(t)}}, sync.Selection{Patterns: []string{"app:v1"}, Referrers: true})
	if err != nil || len(plan.Items) != 2 || plan.Items[1].Source != "app:"+signature {
		t.Errorf("got %+v, %v", plan, err)
	}
}
