package sync_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	gosync "sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/sync"
)

func TestCopyBringsChildrenBeforeParents(t *testing.T) {
	from := store{}
	inner, amd64, arm64 := from.platforms()
	root := from.index(inner, from.image(from.layer("third")))
	to := newRecorder()
	stats, err := sync.Copy(t.Context(), from, to, root, nil)
	if err != nil || to.root != root.Digest {
		t.Fatalf("the root is %s, %v", to.root, err)
	}
	if want := (sync.Stats{Sent: len(from), Bytes: from.size()}); stats != want {
		t.Errorf("got %+v, want %+v", stats, want)
	}
	for d := range from {
		desc := v1.Descriptor{Digest: d}
		if n := to.count("blob", desc) + to.count("manifest", desc); n != 1 {
			t.Errorf("%s came %d times", d, n)
		}
	}
	order := []v1.Descriptor{amd64, arm64, inner, root}
	for i := range order[1:] {
		if to.position("manifest", order[i]) > to.position("manifest", order[i+1]) {
			t.Errorf("%d came after %d", i, i+1)
		}
	}
	if last := to.calls[len(to.calls)-1]; last != "manifest "+string(root.Digest) {
		t.Errorf("the last call was %s", last)
	}
}

func (s store) size() (n int64) {
	for _, content := range s {
		n += int64(len(content))
	}
	return n
}

func TestCopySkipsWhatIsThere(t *testing.T) {
	from := store{}
	root, amd64, arm64 := from.platforms()
	base := from.layer("base")
	to := newRecorder(base, amd64, from.layer("for amd64"))
	stats, err := sync.Copy(t.Context(), from, to, root, nil)
	must(t, err)
	for _, desc := range []v1.Descriptor{base, amd64} {
		if n := to.count("blob", desc) + to.count("manifest", desc); n != 0 {
			t.Errorf("%s was sent though it is there", desc.Digest)
		}
	}
	if to.count("manifest", arm64) != 1 || stats.Existing != 3 || stats.Sent != 4 {
		t.Errorf("got %+v", stats)
	}
}

// The root's names may be new where its content is not.
func TestCopyPushesTheRootThoughItIsThere(t *testing.T) {
	from := store{}
	root := from.image(from.layer("one"))
	to := newRecorder(root, from.layer("one"), from.add(v1.MediaTypeImageConfig, `{"os":"linux"}`))
	stats, err := sync.Copy(t.Context(), from, to, root, nil)
	if err != nil || to.root != root.Digest || to.count("manifest", root) != 1 {
		t.Errorf("the root is %s, %v", to.root, err)
	}
	if want := (sync.Stats{Existing: 3}); stats != want || !stats.Unchanged() {
		t.Errorf("got %+v, want %+v", stats, want)
	}
}

func TestCopyLeavesOutForeignLayers(t *testing.T) {
	from := store{}
	foreign := from.layer("of somebody else")
	delete(from, foreign.Digest)
	foreign.URLs = []string{"https://example.com/layer"}
	root := from.image(from.layer("ours"), foreign)
	to := newRecorder()
	_, err := sync.Copy(t.Context(), from, to, root, nil)
	if err != nil || to.root != root.Digest || to.count("has", foreign)+to.count("blob", foreign) != 0 {
		t.Errorf("the root is %s, %v; calls: %q", to.root, err, to.calls)
	}
}

// What an image lists is blobs, whatever they say that they are: an artifact may wrap a manifest.
func TestCopyOfAnImageWhoseLayerIsAManifest(t *testing.T) {
	from := store{}
	wrapped := from.image(from.layer("inside"))
	delete(from, from.layer("inside").Digest)
	root := from.image(wrapped)
	to := newRecorder()
	_, err := sync.Copy(t.Context(), from, to, root, nil)
	if err != nil || to.count("blob", wrapped) != 1 || to.count("manifest", wrapped) != 0 {
		t.Errorf("%v; calls: %q", err, to.calls)
	}
	registry := serve(t)
	_, err = sync.Copy(t.Context(), from, sync.ToRepository(registry.open(t, "app"), []string{"v1"}, nil), root, nil)
	must(t, err)
	source, err := registry.layout.Repository("app")
	must(t, err)
	_, err = sync.Copy(t.Context(), sync.Repository(source), newRecorder(), root, nil)
	must(t, err)
}

func TestCopyOfWhatIsBlobAndManifestAtOnce(t *testing.T) {
	from := store{}
	inner := from.image(from.layer("inside"))
	root := from.index(inner, from.image(inner))
	to := newRecorder()
	_, err := sync.Copy(t.Context(), from, to, root, nil)
	if err != nil || to.count("blob", inner) != 1 || to.count("manifest", inner) != 1 {
		t.Errorf("%v; calls: %q", err, to.calls)
	}
}

func TestCopyOfAnIndexThatListsABlob(t *testing.T) {
	from := store{}
	blob := from.add("application/vnd.example.data", "data")
	root := from.index(blob)
	to := newRecorder()
	_, err := sync.Copy(t.Context(), from, to, root, nil)
	if err != nil || to.count("blob", blob) != 1 {
		t.Errorf("%v; calls: %q", err, to.calls)
	}
}

func TestCopyRefusesIndexesThatAreNestedTooDeep(t *testing.T) {
	for depth, want := range map[int]error{8: nil, 9: berth.ErrManifestInvalid} {
		from := store{}
		root := from.image(from.layer("one"))
		for range depth {
			root = from.index(root)
		}
		to := newRecorder()
		_, err := sync.Copy(t.Context(), from, to, root, nil)
		if !errors.Is(err, want) || (err == nil) != (to.root == root.Digest) {
			t.Errorf("depth %d: got %v, want %v; the root is %q", depth, err, want, to.root)
		}
		if want != nil && len(to.calls) != 0 {
			t.Errorf("depth %d: something was sent before it was refused: %q", depth, to.calls)
		}
	}
}

// damages are ways in which a source does not hold what its root leads to.
func damages() map[string]struct {
	damage func(from store, root *v1.Descriptor, layer v1.Descriptor)
	err    error
} {
	type way = struct {
		damage func(from store, root *v1.Descriptor, layer v1.Descriptor)
		err    error
	}
	return map[string]way{
		"a layer of other bytes": {func(s store, _ *v1.Descriptor, layer v1.Descriptor) {
			s[layer.Digest] = strings.ToUpper(s[layer.Digest])
		}, berth.ErrDigestInvalid},
		"a layer that is shorter": {func(s store, _ *v1.Descriptor, layer v1.Descriptor) {
			s[layer.Digest] = s[layer.Digest][1:]
		}, berth.ErrDigestInvalid},
		"a layer that is longer":  {func(s store, _ *v1.Descriptor, layer v1.Descriptor) { s[layer.Digest] += "!" }, berth.ErrDigestInvalid},
		"a layer that is empty":   {func(s store, _ *v1.Descriptor, layer v1.Descriptor) { s[layer.Digest] = "" }, berth.ErrDigestInvalid},
		"a layer that is missing": {func(s store, _ *v1.Descriptor, layer v1.Descriptor) { delete(s, layer.Digest) }, berth.ErrBlobUnknown},
		"a manifest of other bytes": {func(s store, root *v1.Descriptor, _ v1.Descriptor) {
			s[root.Digest] = strings.Replace(s[root.Digest], "2", "3", 1)
		}, berth.ErrDigestInvalid},
		"a manifest that is shorter": {func(s store, root *v1.Descriptor, _ v1.Descriptor) { s[root.Digest] = s[root.Digest][1:] }, berth.ErrDigestInvalid},
		"a manifest that is longer":  {func(s store, root *v1.Descriptor, _ v1.Descriptor) { s[root.Digest] += " " }, berth.ErrDigestInvalid},
		"a manifest that is missing": {func(s store, root *v1.Descriptor, _ v1.Descriptor) { delete(s, root.Digest) }, berth.ErrBlobUnknown},
		"a root that is too large":   {func(_ store, root *v1.Descriptor, _ v1.Descriptor) { root.Size = berth.MaxManifestSize + 1 }, berth.ErrSizeInvalid},
		"a root of negative size":    {func(_ store, root *v1.Descriptor, _ v1.Descriptor) { root.Size = -1 }, berth.ErrDigestInvalid},
		"a root without a digest": {func(s store, root *v1.Descriptor, _ v1.Descriptor) {
			s["none"], root.Digest = s[root.Digest], "none"
		}, berth.ErrDigestInvalid},
		"a root that is no manifest": {func(s store, root *v1.Descriptor, _ v1.Descriptor) {
			*root = s.add(v1.MediaTypeImageManifest, "something else")
		}, berth.ErrManifestInvalid},
		"a root of a type that is no manifest's": {func(_ store, root *v1.Descriptor, _ v1.Descriptor) {
			root.MediaType = v1.MediaTypeImageLayer
		}, berth.ErrUnsupported},
	}
}

// A source that lacks something, or gives something else, fails the copy and names nothing: neither
// at a target that says all, nor at a registry.
func TestCopyOfADamagedImageNamesNothing(t *testing.T) {
	for what, c := range damages() {
		t.Run(what, func(t *testing.T) {
			from := store{}
			layer := from.layer("the layer that counts")
			root := from.image(from.layer("another"), layer)
			c.damage(from, &root, layer)
			to := newRecorder()
			if _, err := sync.Copy(t.Context(), from, to, root, nil); !errors.Is(err, c.err) || to.root != "" {
				t.Errorf("got %v, want %v; the root is %q", err, c.err, to.root)
			}
			registry := serve(t)
			target := sync.ToRepository(registry.open(t, "app"), []string{"v1"}, nil)
			if _, err := sync.Copy(t.Context(), from, target, root, nil); !errors.Is(err, c.err) {
				t.Errorf("to a registry: got %v, want %v", err, c.err)
			}
			if tags := tagsOf(t, registry.layout, "app"); len(tags) != 0 {
				t.Errorf("the registry has the tags %q", tags)
			}
		})
	}
}

func TestCopyErrorNamesTheDigest(t *testing.T) {
	from := store{}
	layer := from.layer("one")
	root := from.image(layer)
	for _, missing := range []v1.Descriptor{layer, root} {
		content := from[missing.Digest]
		delete(from, missing.Digest)
		_, err := sync.Copy(t.Context(), from, newRecorder(), root, nil)
		if err == nil || !strings.Contains(err.Error(), string(missing.Digest)) {
			t.Errorf("got %v", err)
		}
		from[missing.Digest] = content
	}
}

// eachCall runs copies to targets of which the first, the second, the third … call is special, until
// one goes through.
func eachCall(t *testing.T, special func(cancel context.CancelFunc) error, want error) {
	from := store{}
	root, _, _ := from.platforms()
	for n := 1; ; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		to := newRecorder()
		var mu gosync.Mutex
		var at string
		calls := 0
		to.before = func(call string) error {
			mu.Lock()
			defer mu.Unlock()
			if calls++; calls == n {
				at = call
				return special(cancel)
			}
			return nil
		}
		_, err := sync.Copy(ctx, from, to, root, nil)
		cancel()
		if calls < n {
			if err != nil || to.root != root.Digest {
				t.Errorf("without an end: %v, the root is %s", err, to.root)
			}
			return
		}
		if err == nil && at == "manifest "+string(root.Digest) {
			continue // it came too late
		}
		if !errors.Is(err, want) || to.root != "" {
			t.Errorf("call %d, %s: got %v, want %v; the root is %q", n, at, err, want, to.root)
		}
	}
}

// A target need not look at the context: a copy that is cancelled goes no further all the same.
func TestCopyCancelledAtAnyCallNamesNothing(t *testing.T) {
	eachCall(t, func(cancel context.CancelFunc) error { cancel(); return nil }, context.Canceled)
}

func TestCopyThatFailsAtAnyCallNamesNothing(t *testing.T) {
	failed := errors.New("failed")
	eachCall(t, func(context.CancelFunc) error { return failed }, failed)
}

func TestCopyCancelledAtAnyRequestLeavesNoTag(t *testing.T) {
	from := store{}
	root, _, _ := from.platforms()
	for n := 1; ; n++ {
		registry := serve(t)
		ctx, cancel := context.WithCancel(t.Context())
		count := &countdown{n: n, done: cancel}
		target := counted{sync.ToRepository(registry.open(t, "app"), []string{"v1", "v2"}, nil), count}
		_, err := sync.Copy(ctx, from, target, root, nil)
		cancel()
		if err == nil {
			if tags := tagsOf(t, registry.layout, "app"); len(tags) != 2 {
				t.Errorf("the copy went through, and the tags are %q", tags)
			}
			return
		}
		if tags := tagsOf(t, registry.layout, "app"); !errors.Is(err, context.Canceled) || len(tags) != 0 {
			t.Errorf("cancelled at call %d: %v; the tags are %q", n, err, tags)
		}
	}
}

// countdown calls done at the n-th step.
type countdown struct {
	done func()

	mu gosync.Mutex // guards the field below
	n  int
}

func (c *countdown) step() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n--; c.n == 0 {
		c.done()
	}
}

// counted counts the calls of a target.
type counted struct {
	sync.Target
	count *countdown
}

func (c counted) Has(ctx context.Context, desc v1.Descriptor) (bool, error) {
	c.count.step()
	return c.Target.Has(ctx, desc)
}

func (c counted) PutBlob(ctx context.Context, desc v1.Descriptor, open func() (io.ReadCloser, error)) (sync.Action, error) {
	c.count.step()
	return c.Target.PutBlob(ctx, desc, open)
}

func (c counted) PutManifest(ctx context.Context, desc v1.Descriptor, raw []byte, root bool) error {
	c.count.step()
	return c.Target.PutManifest(ctx, desc, raw, root)
}

// As many blobs travel at once as are allowed: each waits here until so many have come.
func TestCopyParallel(t *testing.T) {
	for _, parallel := range []int{1, 3} {
		from := store{}
		var layers []v1.Descriptor
		for i := range 3 * parallel {
			layers = append(layers, from.layer(fmt.Sprint("layer ", i)))
		}
		root := from.image(layers[1:]...) // and the config
		to := newRecorder()
		var inside atomic.Int32
		arrived, leave := make(chan int), make(chan bool)
		to.before = func(call string) error {
			if strings.HasPrefix(call, "blob ") {
				arrived <- int(inside.Add(1))
				<-leave
				inside.Add(-1)
			}
			return nil
		}
		go func() {
			for range 3 {
				for range parallel {
					if n := <-arrived; n > parallel {
						t.Errorf("%d travel at once, %d are allowed", n, parallel)
					}
				}
				for range parallel {
					leave <- true
				}
			}
		}()
		_, err := sync.Copy(t.Context(), from, to, root, &sync.CopyOptions{Parallel: parallel})
		must(t, err)
	}
}

// events gathers what a copy tells.
type events struct {
	mu  gosync.Mutex // guards the field below
	all map[digest.Digest][]sync.Event
}

func (e *events) add(event sync.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.all == nil {
		e.all = map[digest.Digest][]sync.Event{}
	}
	e.all[event.Descriptor.Digest] = append(e.all[event.Descriptor.Digest], event)
}

func TestCopyTellsItsProgress(t *testing.T) {
	from := store{}
	there := from.layer("there already")
	large := from.layer(strings.Repeat("large ", 100_000))
	empty := from.layer("")
	root := from.image(there, large, empty)
	var told events
	stats, err := sync.Copy(t.Context(), from, newRecorder(there), root, &sync.CopyOptions{Progress: told.add})
	must(t, err)
	var sum sync.Stats
	for d, list := range told.all {
		last := list[len(list)-1]
		if last.Action == "" || last.Bytes != int64(len(from[d])) {
			t.Errorf("%s ends with %+v", d, last)
		}
		var before int64
		for _, e := range list[:len(list)-1] {
			if e.Action != "" || e.Bytes < before || e.Bytes > e.Descriptor.Size {
				t.Errorf("%s: %+v comes after %d bytes", d, e, before)
			}
			before = e.Bytes
		}
		switch last.Action {
		case sync.Existing:
			sum.Existing++
		case sync.Sent:
			sum.Sent, sum.Bytes = sum.Sent+1, sum.Bytes+last.Bytes
		}
	}
	if sum != stats || len(told.all) != len(from) {
		t.Errorf("the events sum up to %+v for %d digests, the stats are %+v", sum, len(told.all), stats)
	}
	if n := len(told.all[large.Digest]); n < 3 {
		t.Errorf("the large layer was told %d times", n)
	}
}

func TestCopyTakesARootWithoutAMediaType(t *testing.T) {
	from := store{}
	root := from.image(from.layer("one"))
	root.MediaType = ""
	registry := serve(t)
	_, err := sync.Copy(t.Context(), from, sync.ToRepository(registry.open(t, "app"), []string{"v1"}, nil), root, nil)
	must(t, err)
	repo, err := registry.layout.Repository("app")
	must(t, err)
	got, err := repo.Resolve(t.Context(), "v1")
	if err != nil || got.MediaType != v1.MediaTypeImageManifest || got.Digest != root.Digest {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestCopyOfDockerManifests(t *testing.T) {
	from := store{}
	m := v1.Manifest{MediaType: manifest.MediaTypeDockerManifest, Config: from.add("application/vnd.docker.container.image.v1+json", "{}"), Layers: []v1.Descriptor{}}
	m.SchemaVersion = 2
	list := v1.Index{MediaType: manifest.MediaTypeDockerManifestList, Manifests: []v1.Descriptor{from.encode(m.MediaType, m)}}
	list.SchemaVersion = 2
	root := from.encode(list.MediaType, list)
	registry := serve(t)
	_, err := sync.Copy(t.Context(), from, sync.ToRepository(registry.open(t, "app"), []string{"v1"}, nil), root, nil)
	must(t, err)
	repo, err := registry.layout.Repository("app")
	must(t, err)
	if got, err := repo.FetchManifest(t.Context(), "v1", nil); err != nil || string(got.Raw) != from[root.Digest] {
		t.Errorf("got %s, %v", got.Raw, err)
	}
}
