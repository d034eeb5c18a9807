package sync_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/sync"
)

// remembered is a registry as a place, with what is known of it in a journal.
func remembered(t *testing.T, to sync.Destination, journal string) []sync.To {
	t.Helper()
	memory, err := sync.OpenMemory(journal)
	must(t, err)
	t.Cleanup(func() { must(t, memory.Close()) })
	return []sync.To{{Registry: to, Memory: memory}}
}

// run makes a plan and applies it.
func run(t *testing.T, from berth.Registry, to []sync.To, sel sync.Selection) (*sync.Report, error) {
	t.Helper()
	plan, err := sync.Make(t.Context(), from, to, sel)
	must(t, err)
	return sync.Apply(t.Context(), from, to, plan, nil)
}

// count is how many of the requests so far have begun so.
func (s *served) count(begin string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if strings.HasPrefix(r, begin) {
			n++
		}
	}
	return n
}

func (s *served) forget() { s.sent() }

var everything = sync.Selection{Patterns: []string{"**"}}

func TestWhatIsRememberedIsNotAskedFor(t *testing.T) {
	from, to, journal := shelf(t), serve(t), filepath.Join(t.TempDir(), "journal")
	_, err := run(t, from, remembered(t, to, journal), everything)
	must(t, err)
	to.forget()
	report, err := run(t, from, remembered(t, to, journal), everything)
	must(t, err)
	if heads, all := to.count("HEAD"), to.count(""); heads != len(report.Items) || all != heads {
		t.Errorf("%d HEADs in %d requests for %d tags", heads, all, len(report.Items))
	}
	to.forget()
	fixed := everything
	fixed.Immutable = []string{"app/**:v*"}
	_, err = run(t, from, remembered(t, to, journal), fixed)
	must(t, err)
	if all := to.count(""); all != 2 { // app/web:latest and base:latest
		t.Errorf("%d requests, though most tags never change", all)
	}
}

// What was brought when a sync was stopped is not sent again, and nothing is asked about what is known.
func TestASyncGoesOnWhereItWasStopped(t *testing.T) {
	from, to, journal := shelf(t), serve(t), filepath.Join(t.TempDir(), "journal")
	for stop := 1; ; stop++ {
		places := remembered(t, to, journal)
		plan, err := sync.Make(t.Context(), from, places, everything)
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		to.mu.Lock()
		to.refuse = func(r *http.Request) bool {
			if r.Method == http.MethodPut {
				if n++; n == stop {
					cancel()
				}
			}
			return false
		}
		to.mu.Unlock()
		_, err = sync.Apply(ctx, from, places, plan, &sync.ApplyOptions{Parallel: 2})
		cancel()
		if err == nil {
			break
		}
	}
	puts := map[string]int{}
	for _, r := range to.sent() {
		if _, blob, ok := strings.Cut(r, "/blobs/uploads/"); ok && strings.HasPrefix(r, "PUT") {
			puts[blob]++
		}
	}
	for upload, n := range puts {
		if n > 1 {
			t.Errorf("upload %s was sent %d times", upload, n)
		}
	}
}

// A registry that has lost what was brought to it gets it again.
func TestWhatIsRememberedAndGoneIsBroughtAgain(t *testing.T) {
	from, to, images := local(t), serve(t), store{}
	base := images.layer("base")
	images.push(t, from, "app", images.image(base, images.layer("one")), "v1")
	places := remembered(t, to, filepath.Join(t.TempDir(), "journal"))
	_, err := run(t, from, places, everything)
	must(t, err)
	repo := to.open(t, "app")
	must(t, repo.DeleteBlob(t.Context(), base.Digest))
	images.push(t, from, "app", images.image(base, images.layer("two")), "v2")
	report, err := run(t, from, places, everything)
	if err != nil {
		t.Fatalf("%+v, %v", report, err)
	}
	if _, err := repo.StatBlob(t.Context(), base.Digest); err != nil {
		t.Error(err)
	}
}

// Children of an index that are gone are brought again as well.
func TestAnIndexWhoseChildIsGoneIsBroughtWithIt(t *testing.T) {
	from, to, images := local(t), serve(t), store{}
	root, amd64, _ := images.platforms()
	images.push(t, from, "app", root, "v1")
	places := remembered(t, to, filepath.Join(t.TempDir(), "journal"))
	_, err := run(t, from, places, everything)
	must(t, err)
	repo := to.open(t, "app")
	must(t, repo.DeleteManifest(t.Context(), root.Digest))
	must(t, repo.DeleteManifest(t.Context(), amd64.Digest))
	more := images.index(amd64)
	images.push(t, from, "app", more, "v2")
	_, err = run(t, from, places, sync.Selection{Patterns: []string{"app:v2"}})
	must(t, err)
	if n := childrenThere(t, repo, more.Digest); n != 1 {
		t.Error("the child did not come")
	}
}

// What was found at a registry is brought again when it is gone. Nobody there misses a referrer, so that its image tells.
func TestWhatWasFoundAndIsGoneIsBroughtAgain(t *testing.T) {
	from, to, images, dir := local(t), serve(t), store{}, t.TempDir()
	root := images.image(images.layer("layer"))
	signature := images.referrer(root, "signature")
	images.push(t, from, "app", root, "v1")
	images.push(t, from, "app", signature)
	sel := sync.Selection{Patterns: []string{"app"}, Referrers: true}
	brings, finds := remembered(t, to, filepath.Join(dir, "brings")), remembered(t, to, filepath.Join(dir, "finds"))
	for _, places := range [][]sync.To{brings, finds} {
		_, err := run(t, from, places, sel)
		must(t, err)
	}
	repo := to.open(t, "app")
	must(t, repo.DeleteManifest(t.Context(), signature.Digest))
	must(t, repo.DeleteManifest(t.Context(), root.Digest))
	_, err := run(t, from, finds, sel)
	must(t, err)
	for _, desc := range []v1.Descriptor{root, signature} {
		if _, err := repo.Resolve(t.Context(), string(desc.Digest)); err != nil {
			t.Error(err)
		}
	}
}

// A journal that was cut off, or holds what nobody understands, is read as far as it goes.
func TestAJournalThatIsDamaged(t *testing.T) {
	from, to, journal := shelf(t), serve(t), filepath.Join(t.TempDir(), "journal")
	_, err := run(t, from, remembered(t, to, journal), everything)
	must(t, err)
	whole, err := os.ReadFile(journal)
	must(t, err)
	for _, damaged := range []string{
		"", "{", string(whole[:len(whole)/2]), "\x00\xff\n" + string(whole) + `{"repository":"app/web","tag":"v1","mani`,
		strings.Repeat("x", 100_000) + "\n" + string(whole),
	} {
		must(t, os.WriteFile(journal, []byte(damaged), 0o600))
		report, err := run(t, from, remembered(t, to, journal), everything)
		if err != nil || report.Total.Sent != 0 {
			t.Errorf("%.30q: %+v, %v", damaged, report, err)
		}
	}
}

func TestAJournalThatIsLongIsWrittenAnew(t *testing.T) {
	from, to, journal := shelf(t), serve(t), filepath.Join(t.TempDir(), "journal")
	_, err := run(t, from, remembered(t, to, journal), everything)
	must(t, err)
	whole, err := os.ReadFile(journal)
	must(t, err)
	must(t, os.WriteFile(journal, slices.Repeat(whole, 1+(1<<20)/len(whole)), 0o600))
	places := remembered(t, to, journal)
	info, err := os.Stat(journal)
	if err != nil || info.Size() > int64(2*len(whole)) {
		t.Errorf("it has %d bytes, %v; what is in it needs %d", info.Size(), err, len(whole))
	}
	to.forget()
	report, err := run(t, from, places, everything)
	if err != nil || to.count("") != len(report.Items) {
		t.Errorf("%d requests, %v", to.count(""), err)
	}
}

// What is not believed any more is left out then. Tags and uploads are kept, however old they are.
func TestAJournalThatIsWrittenAnewIsWithoutWhatIsOld(t *testing.T) {
	journal := filepath.Join(t.TempDir(), "journal")
	old, now := time.Now().Add(-25*time.Hour).Unix(), time.Now().Unix()
	of := func(name string) digest.Digest { return digest.FromString(name) }
	keeps := map[string]string{
		"a blob":         fmt.Sprintf(`{"repository":"app","blob":"%s","size":7,"at":%d}`, of("blob"), now),
		"a manifest":     fmt.Sprintf(`{"repository":"app","manifest":"%s","at":%d}`, of("manifest"), now),
		"an old tag":     fmt.Sprintf(`{"repository":"app","manifest":"%s","tag":"v1","at":%d}`, of("tagged"), old),
		"an upload":      fmt.Sprintf(`{"repository":"app","blob":"%s","upload":"id","at":0}`, of("begun")),
		"a known target": `{"repository":"old","at":0}`,
	}
	drops := map[string]string{
		"an old blob":     fmt.Sprintf(`{"repository":"old","blob":"%s","size":7,"at":%d}`, of("old blob"), old),
		"an old manifest": fmt.Sprintf(`{"repository":"old","manifest":"%s","at":%d}`, of("old manifest"), old),
	}
	lines := slices.Concat(slices.Collect(maps.Values(keeps)), slices.Collect(maps.Values(drops)), []string{strings.Repeat("x\n", 1<<19)})
	must(t, os.WriteFile(journal, []byte(strings.Join(lines, "\n")), 0o600))
	memory, err := sync.OpenMemory(journal)
	must(t, err)
	must(t, memory.Close())
	written, err := os.ReadFile(journal)
	must(t, err)
	for name, line := range keeps {
		if !strings.Contains(string(written), line+"\n") {
			t.Errorf("%s is gone:\n%s", name, written)
		}
	}
	for name, line := range drops {
		if strings.Contains(string(written), line) {
			t.Errorf("%s is kept", name)
		}
	}
}

func TestTagsThatNeverChangeAreNotMoved(t *testing.T) {
	from, to, images := shelf(t), serve(t), store{}
	images.push(t, to, "app/web", images.image(images.layer("another one")), "v1")
	sel := sync.Selection{Patterns: []string{"app/web"}, Immutable: []string{"**:v*"}}
	report, err := run(t, from, at(to), sel)
	if err == nil || !strings.Contains(err.Error(), "app/web:v1 → "+to.Host()+"/app/web:v1: refused: it never changes") {
		t.Errorf("got %v", err)
	}
	for _, r := range report.Items {
		if (r.Error != "") != (r.Source == "app/web:v1") {
			t.Errorf("%s: %s", r.Source, r.Error)
		}
	}
}

func TestTagsThatAreGoneAreRemoved(t *testing.T) {
	from, to := shelf(t), serve(t)
	places := []sync.To{{Registry: to, Prefix: "team"}}
	_, err := run(t, from, places, everything)
	must(t, err)
	images := store{}
	for _, tag := range []string{"v3", "v4", "other"} {
		images.push(t, to, "team/app/web", images.image(images.layer(tag)), tag)
	}
	sel := sync.Selection{Patterns: []string{"app/web:v*"}, Prune: true, PruneMax: 1}
	if _, err := sync.Make(t.Context(), from, places, sel); !errors.Is(err, sync.ErrTooMany) {
		t.Errorf("beyond the bound: %v", err)
	}
	sel.PruneMax = 2
	plan, err := sync.Make(t.Context(), from, places, sel)
	must(t, err)
	if got := tagsOf(t, to.layout, "team/app/web"); len(plan.Drift()) != 2 || len(got) != 6 {
		t.Errorf("the plan is %+v, and there are %q", plan.Drift(), got)
	}
	_, err = sync.Apply(t.Context(), from, places, plan, nil)
	must(t, err)
	if got := tagsOf(t, to.layout, "team/app/web"); !slices.Equal(got, []string{"latest", "other", "v1", "v2"}) {
		t.Errorf("there are %q", got)
	}
}

func TestNothingIsRemovedWhereSomethingFails(t *testing.T) {
	from, to := shelf(t), serve(t)
	images := store{}
	images.push(t, to, "app/web", images.image(images.layer("old")), "old")
	plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"app/web"}, Prune: true})
	must(t, err)
	to.refuse = func(r *http.Request) bool { return r.Method == http.MethodPost }
	report, err := sync.Apply(t.Context(), from, at(to), plan, nil)
	if err == nil || report.Items[len(report.Items)-1].Error == "" {
		t.Errorf("got %+v, %v", report, err)
	}
	if got := tagsOf(t, to.layout, "app/web"); !slices.Contains(got, "old") {
		t.Errorf("there are %q", got)
	}
}

// What refers to an image goes with it: referrers, theirs, and tags by convention; also to an image that is there already.
func TestWhatRefersToAnImageGoesWithIt(t *testing.T) {
	from, to, images := local(t), serve(t), store{}
	root, amd64, _ := images.platforms()
	images.push(t, from, "app", root, "v1")
	sel := sync.Selection{Patterns: []string{"app:v1"}, Referrers: true}
	places := remembered(t, to, filepath.Join(t.TempDir(), "journal"))
	_, err := run(t, from, places, sel)
	must(t, err)
	signature := images.referrer(root, "signature")
	for _, r := range []v1.Descriptor{signature, images.referrer(signature, "of the signature"), images.referrer(amd64, "attestation")} {
		images.push(t, from, "app", r)
	}
	companion := strings.Replace(string(root.Digest), ":", "-", 1) + ".sig"
	images.push(t, from, "app", images.image(images.layer("cosign")), companion)
	plan, err := sync.Make(t.Context(), from, places, sel)
	must(t, err)
	if len(plan.Drift()) != 2 || len(plan.Items[0].Referrers) != 3 {
		t.Errorf("the plan is %+v", plan)
	}
	_, err = sync.Apply(t.Context(), from, places, plan, nil)
	must(t, err)
	for _, subject := range []v1.Descriptor{root, signature, amd64} {
		n := 0
		for _, err := range to.open(t, "app").Referrers(t.Context(), subject.Digest, nil) {
			must(t, err)
			n++
		}
		if n != 1 {
			t.Errorf("%s has %d referrers", subject.Digest, n)
		}
	}
	if got := tagsOf(t, to.layout, "app"); !slices.Contains(got, companion) {
		t.Errorf("there are %q", got)
	}
	to.forget()
	_, err = run(t, from, places, sel)
	must(t, err)
	if n := to.count(""); n != 2+3 { // two tags, and a list for each that something refers to
		t.Errorf("%d requests for what has not changed", n)
	}
	must(t, to.open(t, "app").DeleteManifest(t.Context(), signature.Digest))
	_, err = run(t, from, places, sel)
	must(t, err)
	if _, err := to.open(t, "app").Resolve(t.Context(), string(signature.Digest)); err != nil {
		t.Errorf("a signature that was lost was not brought again: %v", err)
	}
}

// However many images and repositories need it, a blob moves to a host once.
func TestABlobMovesOnce(t *testing.T) {
	from, one, two := shelf(t), serve(t), serve(t)
	places := []sync.To{{Registry: one}, {Registry: two, Prefix: "mirror"}}
	report, err := run(t, from, places, everything)
	must(t, err)
	for _, to := range []*served{one, two} {
		if n := to.count("PUT"); n == 0 {
			t.Error("nothing came")
		}
	}
	blobs := 2 + 7 // a config and a shared layer, and one of each tag
	if want := 2 * (blobs + 7); report.Total.Sent != want {
		t.Errorf("%d were sent, want %d: %+v", report.Total.Sent, want, report.Total)
	}
}

// A plan that was kept is carried out as it is, unless a tag has moved since.
func TestAPlanThatIsOld(t *testing.T) {
	from, to, images := shelf(t), serve(t), store{}
	plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"app/web:v*"}})
	must(t, err)
	images.push(t, to, "app/web", images.image(images.layer("meanwhile")), "v1")
	report, err := sync.Apply(t.Context(), from, at(to), saved(t, plan), nil)
	if !errors.Is(err, berth.ErrPreconditionFailed) || report.Items[0].Error == "" || report.Items[1].Error != "" {
		t.Errorf("got %+v, %v", report, err)
	}
}
