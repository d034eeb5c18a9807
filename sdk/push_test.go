package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	gosync "sync"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/source"
	"github.com/berthoci/berth/sdk/sync"
)

func TestPushSetsTheTagsThatAreNamed(t *testing.T) {
	image := build(t, "one")
	for ref, want := range map[string][]string{
		"app/hello:v1":           {"v1"},
		"app/hello":              {"latest"},
		"app/hello:v1,v2,latest": {"v1", "v2", "latest"},
		"app/hello,v1":           {"latest", "v1"},
	} {
		registry := open(t, sdk.Options{})
		pushed, err := registry.Push(t.Context(), image.source(), ref, nil)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		wantEqual(t, ref, pushed.Tags, want)
		if d := pushed.Descriptor; d.Digest != image.root.Digest || d.Size != image.root.Size || d.MediaType != image.root.MediaType {
			t.Errorf("%s: got %+v, want %+v", ref, d, image.root)
		}
		if len(tags(t, registry, "app/hello")) != len(want) {
			t.Errorf("%s: the repository has the tags %q", ref, tags(t, registry, "app/hello"))
		}
		for _, tag := range want {
			if got, err := registry.Resolve(t.Context(), "app/hello:"+tag); err != nil || got.Digest != image.root.Digest {
				t.Errorf("%s: %s is %v, %v", ref, tag, got, err)
			}
		}
	}
}

func TestPushRefusesReferencesThatItCannotSet(t *testing.T) {
	image, registry := build(t, "one"), open(t, sdk.Options{})
	for ref, want := range map[string]error{
		"":                                       berth.ErrNameInvalid,
		"App/hello:v1":                           berth.ErrNameInvalid,
		"app/hello:":                             berth.ErrTagInvalid,
		"app/hello:v 1":                          berth.ErrTagInvalid,
		"app/hello:v1,":                          berth.ErrTagInvalid,
		"app/hello:v1,,v2":                       berth.ErrTagInvalid,
		"app/hello:v1,-v2":                       berth.ErrTagInvalid,
		"app/hello:v1,app/hello:v2":              berth.ErrTagInvalid,
		"app/hello@" + string(image.root.Digest): berth.ErrTagInvalid,
		"app/hello:v1@" + string(image.root.Digest): berth.ErrTagInvalid,
		"registry.example.com/app/hello:v1":         berth.ErrNameInvalid,
		"localhost:5000/app/hello:v1":               berth.ErrNameInvalid,
		"localhost/app/hello":                       berth.ErrNameInvalid,
	} {
		_, err := registry.Push(t.Context(), image.source(), ref, nil)
		wantErr(t, ref, err, want)
		if err != nil && !strings.Contains(err.Error(), `"`+ref+`"`) {
			t.Errorf("%s is not named: %v", ref, err)
		}
	}
	for name, err := range registry.Repositories(t.Context(), "") {
		t.Errorf("there is a repository %s, %v", name, err)
	}
}

// Who names the repository before each tag, as others want it, is told what is wanted here.
func TestCheckTagsTellsTheShorterForm(t *testing.T) {
	for ref, hint := range map[string]string{
		"app/hello:v1,app/hello:v2,v3": "; write app/hello:v1,v2,v3",
		"app/hello:v1,app/other:v2":    "",
		"app/hello:v1,app/hello:":      "",
		"app/hello,app/hello:v1":       "",
	} {
		err := sdk.CheckTags(ref)
		wantErr(t, ref, err, berth.ErrTagInvalid)
		if text := fmt.Sprint(err); !strings.HasSuffix(text, hint) || strings.Contains(text, "; write") != (hint != "") {
			t.Errorf("%s: got %v, want it to end in %q", ref, err, hint)
		}
	}
	for _, ref := range []string{"app/hello", "app/hello:v1", "app/hello:v1,v2"} {
		must(t, sdk.CheckTags(ref))
	}
}

func TestPushReportsWhatTheSourceLacks(t *testing.T) {
	for what, c := range map[string]struct {
		damage func(b built) error
		err    error
		says   func(b built) string
	}{
		"a missing layer":      {func(b built) error { return os.Remove(b.file(b.layer)) }, berth.ErrBlobUnknown, func(b built) string { return string(b.layer.Digest) }},
		"a truncated layer":    {func(b built) error { return os.Truncate(b.file(b.layer), 1) }, berth.ErrBlobUnknown, func(b built) string { return string(b.layer.Digest) }},
		"a layer that lies":    {func(b built) error { return os.WriteFile(b.file(b.layer), []byte("ENO"), 0o644) }, berth.ErrDigestInvalid, func(b built) string { return string(b.layer.Digest) }},
		"a missing manifest":   {func(b built) error { return os.Remove(b.file(b.root)) }, berth.ErrBlobUnknown, func(b built) string { return string(b.root.Digest) }},
		"a manifest that lies": {func(b built) error { return os.WriteFile(b.file(b.root), make([]byte, b.root.Size), 0o644) }, berth.ErrDigestInvalid, func(b built) string { return string(b.root.Digest) }},
		"no index.json":        {func(b built) error { return os.Remove(b.dir + "/index.json") }, berth.ErrLayoutInvalid, func(built) string { return "index.json" }},
		"nothing at all":       {func(b built) error { return os.RemoveAll(b.dir) }, os.ErrNotExist, func(b built) string { return b.dir }},
	} {
		registry, image := open(t, sdk.Options{}), build(t, "one")
		must(t, c.damage(image))
		_, err := registry.Push(t.Context(), image.source(), "app/hello:v1", nil)
		wantErr(t, what, err, c.err)
		if err == nil || !strings.Contains(err.Error(), c.says(image)) || !strings.Contains(err.Error(), image.dir) {
			t.Errorf("%s: %v does not name it", what, err)
		}
		if left := tags(t, registry, "app/hello"); len(left) != 0 {
			t.Errorf("%s: there are the tags %q", what, left)
		}
	}
}

// opaque is a source that a tool made itself, which cannot tell what it is.
type opaque struct{ files map[string][]byte }

func (o opaque) Root(context.Context) (v1.Descriptor, error) {
	return v1.Descriptor{Digest: "sha256:" + digestZero, Size: 1}, nil
}

func (o opaque) Fetch(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return nil, fmt.Errorf("%s: %w", desc.Digest, berth.ErrBlobUnknown)
}

func (o opaque) Close() error { return nil }

const digestZero = "0000000000000000000000000000000000000000000000000000000000000000"

func TestPushErrorShowsNothingOfASourceItself(t *testing.T) {
	from := opaque{map[string][]byte{"secret": []byte("content")}}
	_, err := open(t, sdk.Options{}).Push(t.Context(), from, "app:v1", nil)
	wantErr(t, "Push", err, berth.ErrBlobUnknown)
	if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "%!") || !strings.Contains(err.Error(), "app:v1") {
		t.Errorf("got %v", err)
	}
}

// memory is a source in memory.
type memory struct {
	root  v1.Descriptor
	files map[string]string
}

func (m memory) Root(context.Context) (v1.Descriptor, error) { return m.root, nil }
func (m memory) Close() error                                { return nil }

func (m memory) Fetch(_ context.Context, desc v1.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader([]byte(m.files[string(desc.Digest)]))), nil
}

func TestPushTakesAnySource(t *testing.T) {
	image, registry := build(t, "one"), open(t, sdk.Options{})
	from := memory{image.root, map[string]string{}}
	from.root.MediaType = ""
	from.root.Annotations = map[string]string{"of": "the tool's own"}
	for _, content := range []string{"one", `{"os":"linux"}`} {
		from.files[string(describe(content).Digest)] = content
	}
	raw, err := os.ReadFile(image.file(image.root))
	must(t, err)
	from.files[string(image.root.Digest)] = string(raw)
	pushed, err := registry.Push(t.Context(), from, "app:v1", nil)
	must(t, err)
	if d := pushed.Descriptor; d.MediaType != image.root.MediaType || d.Digest != image.root.Digest || d.Annotations != nil {
		t.Errorf("got %+v, want %+v", d, image.root)
	}
}

func TestPushOfWhatIsThereSendsNoBlob(t *testing.T) {
	image, registry := build(t, "one"), open(t, sdk.Options{})
	first, err := registry.Push(t.Context(), image.source(), "app:v1", nil)
	must(t, err)
	second, err := registry.Push(t.Context(), image.source(), "app:v2", nil)
	must(t, err)
	if want := (sync.Stats{Sent: 3, Bytes: first.Stats.Bytes}); first.Stats != want {
		t.Errorf("first: %+v", first.Stats)
	}
	if want := (sync.Stats{Existing: 3}); second.Stats != want {
		t.Errorf("second: %+v, want %+v", second.Stats, want)
	}
}

func TestPushOfAnArchive(t *testing.T) {
	image, registry := build(t, "one"), open(t, sdk.Options{})
	name := t.TempDir() + "/image.tar"
	to, err := source.ToArchive(name, "v1")
	must(t, err)
	for _, desc := range []v1.Descriptor{image.layer, image.root, describe(`{"os":"linux"}`)} {
		content, err := os.Open(image.file(desc))
		must(t, err)
		must(t, errors.Join(to.Put(t.Context(), desc, content), content.Close()))
	}
	must(t, errors.Join(to.Commit(t.Context(), image.root), to.Close()))
	from := source.Archive(name, "")
	defer from.Close()
	if pushed, err := registry.Push(t.Context(), from, "app:v1", nil); err != nil || pushed.Descriptor.Digest != image.root.Digest {
		t.Errorf("got %+v, %v", pushed, err)
	}
}

func TestPushMovesATag(t *testing.T) {
	registry := open(t, sdk.Options{})
	one, two := push(t, registry, "one", "app:v1"), push(t, registry, "two", "app:v1")
	if got, err := registry.Resolve(t.Context(), "app:v1"); err != nil || got.Digest != two.Digest {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := registry.Resolve(t.Context(), "app@"+string(one.Digest)); err != nil || got.Digest != one.Digest {
		t.Errorf("the old image: got %v, %v", got, err)
	}
}

// At whatever moment a push is cancelled, it has set all of its tags or none, and says which.
func TestPushThatIsCancelledNamesNothing(t *testing.T) {
	image := build(t, strings.Repeat("a layer of some size ", 20_000))
	for n := 1; ; n++ {
		registry := open(t, sdk.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		var mu gosync.Mutex
		events := 0
		pushed, err := registry.Push(ctx, image.source(), "app:v1,v2", &sdk.PushOptions{Progress: func(sync.Event) {
			mu.Lock()
			defer mu.Unlock()
			if events++; events == n {
				cancel()
			}
		}})
		cancel()
		left := tags(t, registry, "app")
		if err == nil {
			wantEqual(t, "after a push that went through", left, []string{"v1", "v2"})
			if pushed.Descriptor.Digest != image.root.Digest {
				t.Errorf("got %+v", pushed)
			}
			if events < n {
				return
			}
			continue // it was cancelled when all was done
		}
		wantErr(t, fmt.Sprint("cancelled at event ", n), err, context.Canceled)
		wantEqual(t, fmt.Sprint("tags after a push that was cancelled at event ", n), left, nil)
	}
}

func TestPushAtOnce(t *testing.T) {
	dir := t.TempDir()
	registry := open(t, sdk.Options{Layout: dir})
	images := []built{build(t, "one"), build(t, "two"), build(t, "three")}
	var group errgroup.Group
	for i, image := range images {
		for j := range 4 {
			group.Go(func() error {
				_, err := registry.Push(t.Context(), image.source(), fmt.Sprintf("app/%d:v%d", i, j), nil)
				return err
			})
		}
	}
	must(t, group.Wait())
	must(t, registry.Flush(t.Context()))
	got := listed(t, dir)
	for i, image := range images {
		for j := range 4 {
			if name := fmt.Sprintf("app/%d:v%d", i, j); got[name] != image.root.Digest {
				t.Errorf("%s is %s", name, got[name])
			}
		}
	}
}
