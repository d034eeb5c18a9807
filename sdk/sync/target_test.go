package sync_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/sync"
)

func TestBlobsAreMountedBetweenRepositoriesOfOneHost(t *testing.T) {
	from := store{}
	root := from.image(from.layer("one"), from.layer("two"))
	registry, known := serve(t), &sync.Memory{}
	first, err := sync.Copy(t.Context(), from, sync.ToRepository(registry.open(t, "app/one"), []string{"v1"}, known), root, nil)
	if err != nil || first.Sent != 4 {
		t.Fatalf("got %+v, %v", first, err)
	}
	registry.sent()
	second, err := sync.Copy(t.Context(), from, sync.ToRepository(registry.open(t, "app/two"), []string{"v1"}, known), root, nil)
	if want := (sync.Stats{Mounted: 3, Sent: 1, Bytes: root.Size}); err != nil || second != want {
		t.Errorf("got %+v, want %+v, %v", second, want, err)
	}
	for _, r := range registry.sent() {
		if strings.HasPrefix(r, "PATCH ") || strings.HasPrefix(r, "PUT /v2/app/two/blobs/") {
			t.Errorf("bytes were sent: %s", r)
		}
	}
}

// What was found in a repository is mounted from there, as what was sent to it.
func TestBlobsThatWereThereAreMountedToo(t *testing.T) {
	from := store{}
	root := from.image(from.layer("one"))
	registry, known := serve(t), &sync.Memory{}
	from.push(t, registry.layout, "app/one", root, "v1")
	_, err := sync.Copy(t.Context(), from, sync.ToRepository(registry.open(t, "app/one"), []string{"v2"}, known), root, nil)
	must(t, err)
	stats, err := sync.Copy(t.Context(), from, sync.ToRepository(registry.open(t, "app/two"), []string{"v1"}, known), root, nil)
	if err != nil || stats.Mounted != 2 {
		t.Errorf("got %+v, %v", stats, err)
	}
}

func TestWithoutKnownBlobsAreSent(t *testing.T) {
	from := store{}
	root := from.image(from.layer("one"))
	registry := serve(t)
	for _, name := range []string{"app/one", "app/two"} {
		stats, err := sync.Copy(t.Context(), from, sync.ToRepository(registry.open(t, name), []string{"v1"}, nil), root, nil)
		if err != nil || stats.Mounted != 0 || stats.Sent != 3 {
			t.Errorf("%s: got %+v, %v", name, stats, err)
		}
	}
}

// A registry that will not mount, or knows better than Memory, is sent the bytes.
func TestAMountThatDoesNotWorkIsAnUpload(t *testing.T) {
	from := store{}
	root := from.image(from.layer("one"))
	registry, known := serve(t), &sync.Memory{}
	_, err := sync.Copy(t.Context(), from, sync.ToRepository(registry.open(t, "app/one"), []string{"v1"}, known), root, nil)
	must(t, err)
	gone, err := registry.layout.Repository("app/one")
	must(t, err)
	for d := range from {
		if d != root.Digest {
			must(t, gone.DeleteBlob(t.Context(), d))
		}
	}
	stats, err := sync.Copy(t.Context(), from, sync.ToRepository(registry.open(t, "app/two"), []string{"v1"}, known), root, nil)
	if err != nil || stats.Mounted != 0 || stats.Sent != 3 {
		t.Errorf("got %+v, %v", stats, err)
	}
}

func TestKnownMayBeUsedAtOnce(t *testing.T) {
	from := store{}
	root := from.image(from.layer("one"), from.layer("two"), from.layer("three"))
	registry, known := serve(t), &sync.Memory{}
	var group errgroup.Group
	for _, name := range []string{"app/one", "app/two", "app/three", "app/four"} {
		group.Go(func() error {
			repo, err := registry.Open(name)
			if err == nil {
				_, err = sync.Copy(t.Context(), from, sync.ToRepository(repo, []string{"v1"}, known), root, nil)
			}
			return err
		})
	}
	must(t, group.Wait())
	for _, name := range []string{"app/one", "app/two", "app/three", "app/four"} {
		if tags := tagsOf(t, registry.layout, name); !slices.Equal(tags, []string{"v1"}) {
			t.Errorf("%s has the tags %q", name, tags)
		}
	}
}

func TestToRepositoryHas(t *testing.T) {
	from := store{}
	layer := from.layer("one")
	root := from.image(layer)
	registry := serve(t)
	from.push(t, registry.layout, "app", root, "v1")
	larger, absent, absentManifest := layer, layer, root
	larger.Size++
	absent.Digest, absentManifest.Digest = digest.FromString("absent"), digest.FromString("absent")
	for _, c := range []struct {
		what, repo string
		desc       v1.Descriptor
		want       bool
	}{
		{"a blob", "app", layer, true},
		{"a manifest", "app", root, true},
		{"a blob of another size", "app", larger, false},
		{"no blob", "app", absent, false},
		{"no manifest", "app", absentManifest, false},
		{"a blob of another repository", "other", layer, false},
		{"a manifest of another repository", "other", root, false},
	} {
		there, err := sync.ToRepository(registry.open(t, c.repo), nil, nil).Has(t.Context(), c.desc)
		if err != nil || there != c.want {
			t.Errorf("%s: got %v, %v", c.what, there, err)
		}
	}
}

// Whether something is there is one question; that it could not be asked is no answer to it.
func TestToRepositoryHasTellsFailureFromAbsence(t *testing.T) {
	from := store{}
	layer := from.layer("one")
	root := from.image(layer)
	registry := serve(t)
	registry.refuse = func(*http.Request) bool { return true }
	for _, desc := range []v1.Descriptor{layer, root} {
		if there, err := sync.ToRepository(registry.open(t, "app"), nil, nil).Has(t.Context(), desc); err == nil {
			t.Errorf("got %v", there)
		}
	}
}

func TestToRepositorySetsAllTagsAtTheRootAlone(t *testing.T) {
	from := store{}
	root, amd64, _ := from.platforms()
	registry := serve(t)
	_, err := sync.Copy(t.Context(), from, sync.ToRepository(registry.open(t, "app"), []string{"v1", "latest"}, nil), root, nil)
	must(t, err)
	repo := registry.open(t, "app")
	for _, tag := range []string{"v1", "latest"} {
		if got, err := repo.Resolve(t.Context(), tag); err != nil || got.Digest != root.Digest {
			t.Errorf("%s: got %v, %v", tag, got, err)
		}
	}
	if got, err := repo.Resolve(t.Context(), string(amd64.Digest)); err != nil || got.Digest != amd64.Digest {
		t.Errorf("the child: got %v, %v", got, err)
	}
	if tags := tagsOf(t, registry.layout, "app"); len(tags) != 2 {
		t.Errorf("got the tags %q", tags)
	}
}

// Whichever request a registry fails at, no tag is left; and the next copy brings what is missing.
func TestARegistryThatFailsAtAnyRequestLeavesNoTag(t *testing.T) {
	from := store{}
	root, _, _ := from.platforms()
	for n := 1; ; n++ {
		registry := serve(t)
		asked := 0
		registry.refuse = func(*http.Request) bool { asked++; return asked == n }
		target := sync.ToRepository(registry.open(t, "app"), []string{"v1"}, nil)
		_, err := sync.Copy(t.Context(), from, target, root, &sync.CopyOptions{Parallel: 1})
		if asked < n {
			must(t, err)
			return
		}
		if tags := tagsOf(t, registry.layout, "app"); err == nil || len(tags) != 0 {
			t.Errorf("request %d: %v; the tags are %q", n, err, tags)
		}
		if _, err := sync.Copy(t.Context(), from, target, root, nil); err != nil {
			t.Errorf("after request %d: %v", n, err)
		}
		if tags := tagsOf(t, registry.layout, "app"); len(tags) != 1 {
			t.Errorf("after request %d the tags are %q", n, tags)
		}
	}
}

func TestRepositoryIsASource(t *testing.T) {
	from := store{}
	root, _, _ := from.platforms()
	for what, registry := range map[string]berth.Registry{"a layout": local(t), "over HTTP": serve(t).Registry} {
		from.push(t, registry, "app", root, "v1")
		repo, err := registry.Repository("app")
		must(t, err)
		to := newRecorder()
		stats, err := sync.Copy(t.Context(), sync.Repository(repo), to, root, nil)
		if err != nil || to.root != root.Digest || stats.Bytes != from.size() {
			t.Errorf("%s: got %+v, %v", what, stats, err)
		}
	}
}

func TestRepositoryAsASourceThatLacksSomething(t *testing.T) {
	from := store{}
	layer := from.layer("one")
	root := from.image(layer)
	registry := local(t)
	from.push(t, registry, "app", root, "v1")
	repo, err := registry.Repository("app")
	must(t, err)
	must(t, repo.DeleteBlob(t.Context(), layer.Digest))
	for what, desc := range map[string]v1.Descriptor{
		"its layer":    root,
		"its manifest": from.image(from.layer("another")),
	} {
		to := newRecorder()
		_, err := sync.Copy(t.Context(), sync.Repository(repo), to, desc, nil)
		if !errors.Is(err, berth.ErrBlobUnknown) || to.root != "" {
			t.Errorf("without %s: got %v", what, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sync.Copy(ctx, sync.Repository(repo), newRecorder(), root, nil); err == nil {
		t.Error("a cancelled copy went through")
	}
}
