package pin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
)

// registry answers from a map; what is not in it is unknown.
type registry struct {
	manifests map[string]berth.Manifest
	errors    map[string]error
	// before, if set, runs in each call.
	before func(ctx context.Context, reference string) error

	mu    sync.Mutex // guards the fields below
	asked []string
}

func (r *registry) FetchReference(ctx context.Context, reference string) (berth.Manifest, error) {
	r.mu.Lock()
	r.asked = append(r.asked, reference)
	r.mu.Unlock()
	if r.before != nil {
		if err := r.before(ctx, reference); err != nil {
			return berth.Manifest{}, err
		}
	}
	if err := r.errors[reference]; err != nil {
		return berth.Manifest{}, err
	}
	m, ok := r.manifests[reference]
	if !ok {
		return m, fmt.Errorf("no such tag: %w", berth.ErrManifestUnknown)
	}
	return m, nil
}

func manifestOf(mediaType, raw string) berth.Manifest {
	return berth.Manifest{Descriptor: manifest.Descriptor(mediaType, []byte(raw)), Raw: []byte(raw)}
}

// imageManifest is an image that is told apart by its name.
func imageManifest(name string) berth.Manifest {
	return manifestOf(v1.MediaTypeImageManifest, fmt.Sprintf(
		`{"schemaVersion":2,"config":{"mediaType":"x/y","digest":"%s","size":1},"annotations":{"name":%q}}`, hexOf("0"), name))
}

// indexManifest has one child for each "platform JSON=digest character".
func indexManifest(children ...string) berth.Manifest {
	var list []string
	for _, c := range children {
		platform, d, _ := strings.Cut(c, "=")
		if platform != "" {
			platform = `,"platform":` + platform
		}
		list = append(list, fmt.Sprintf(`{"mediaType":%q,"digest":"%s","size":3%s}`, v1.MediaTypeImageManifest, hexOf(d), platform))
	}
	return manifestOf(v1.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[`+strings.Join(list, ",")+`]}`)
}

const (
	amd64   = `{"os":"linux","architecture":"amd64"}`
	arm64   = `{"os":"linux","architecture":"arm64","variant":"v8"}`
	windows = `{"os":"windows","architecture":"amd64","os.version":"10.0.20348.2227"}`
	unknown = `{"os":"unknown","architecture":"unknown"}`
)

func TestAdd(t *testing.T) {
	from := &registry{manifests: map[string]berth.Manifest{
		"app/hello:v1":                  indexManifest(amd64+"=1", arm64+"=2", windows+"=3", unknown+"=4", unknown+"=5", "=6"),
		"docker.io/library/alpine:3.20": imageManifest("alpine"),
		"app/hello:latest":              imageManifest("latest"),
	}}
	f := mustParse(t, empty)
	changes, err := Add(t.Context(), f, from, "docker.io/alpine:3.20", "app/hello:v1", "app/hello", "app/hello:latest")
	if err != nil {
		t.Fatal(err)
	}
	var want []Change
	for _, key := range []string{"docker.io/library/alpine:3.20", "app/hello:v1", "app/hello:latest"} {
		want = append(want, Change{Reference: key, New: from.manifests[key].Descriptor.Digest})
	}
	if !slices.Equal(changes, want) {
		t.Errorf("changes\n got %+v\nwant %+v", changes, want)
	}
	if len(from.asked) != 3 {
		t.Errorf("asked for %v", from.asked)
	}
	hello := index("app/hello:v1", "0", "linux/amd64=1", "linux/arm64/v8=2", "windows(10.0.20348.2227)/amd64=3")
	hello.Digest, hello.Size = from.manifests["app/hello:v1"].Descriptor.Digest, from.manifests["app/hello:v1"].Descriptor.Size
	if got, _ := f.Pin("app/hello:v1"); !got.equal(hello) {
		t.Errorf("pin\n got %+v\nwant %+v", got, hello)
	}
	if got, _ := f.Pin("docker.io/alpine:3.20"); got.MediaType != v1.MediaTypeImageManifest || got.Platforms != nil {
		t.Errorf("pin of an image: %+v", got)
	}
}

func TestAddAgain(t *testing.T) {
	from := &registry{manifests: map[string]berth.Manifest{"a:v1": imageManifest("one"), "b:v1": imageManifest("b")}}
	f := mustParse(t, expand(head+"  a:v1: # mine\n"+fields+"    comment: why\n"))
	if _, err := Add(t.Context(), f, from, "a:v1", "b:v1"); err != nil {
		t.Fatal(err)
	}
	before := string(f.Bytes())
	if !strings.Contains(before, "a:v1: # mine\n") || !strings.Contains(before, "comment: why\n") {
		t.Errorf("comments are lost:\n%s", before)
	}
	old := from.manifests["a:v1"].Descriptor.Digest
	if changes, err := Add(t.Context(), f, from, "a:v1"); err != nil || !slices.Equal(changes, []Change{{"a:v1", old, old}}) {
		t.Errorf("the same again: %+v, %v", changes, err)
	}
	wantBytes(t, f, before)
	from.manifests["a:v1"] = imageManifest("two")
	if changes, err := Add(t.Context(), f, from, "a:v1"); err != nil || !slices.Equal(changes, []Change{{"a:v1", old, from.manifests["a:v1"].Descriptor.Digest}}) {
		t.Errorf("moved: %+v, %v", changes, err)
	}
}

func TestAddKeepsWhatSucceeded(t *testing.T) {
	broken := imageManifest("broken")
	broken.Raw = append(slices.Clone(broken.Raw), ' ')
	nameless := imageManifest("nameless")
	nameless.Descriptor.Digest = "sha256:12"
	from := &registry{
		manifests: map[string]berth.Manifest{
			"good:v1": imageManifest("good"), "broken:v1": broken, "nameless:v1": nameless,
			"text:v1": manifestOf("text/plain", "{}"), "bad:v1": manifestOf(v1.MediaTypeImageManifest, "{}"),
		},
		errors: map[string]error{"denied:v1": berth.ErrDenied},
	}
	f := mustParse(t, empty)
	digest := "@" + string(hexOf("a"))
	changes, err := Add(t.Context(), f, from, "missing:v1", "good:v1", "denied:v1", "broken:v1", "nameless:v1", "text:v1", "bad:v1", "NO", "x"+digest, "good:v1")
	if len(changes) != 1 || changes[0].Reference != "good:v1" || len(f.Pins()) != 1 {
		t.Errorf("changes are %+v, pins %+v", changes, f.Pins())
	}
	for _, want := range []error{berth.ErrManifestUnknown, berth.ErrDenied, berth.ErrDigestInvalid, berth.ErrUnsupported, berth.ErrManifestInvalid, berth.ErrNameInvalid, ErrInvalid} {
		if !errors.Is(err, want) {
			t.Errorf("%v is not told in: %v", want, err)
		}
	}
	for _, want := range []string{"missing:v1: ", "denied:v1: ", "broken:v1: ", "nameless:v1: ", "text:v1: ", "bad:v1: ", `"NO"`, `"x@sha256:`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not told in: %v", want, err)
		}
	}
	if n := strings.Count(err.Error(), "\n"); n != 7 {
		t.Errorf("8 failures make %d lines: %v", n+1, err)
	}
}

func TestAddWithADigest(t *testing.T) {
	is := imageManifest("a")
	from := &registry{manifests: map[string]berth.Manifest{"a:v1": is}}
	right, wrong := "a:v1@"+string(is.Descriptor.Digest), "a:v1@"+string(hexOf("a"))
	tests := []struct {
		name       string
		references []string
		pins       int
		want       error
	}{
		{"that it has", []string{right}, 1, nil},
		{"that it has, twice", []string{"a:v1", right, right}, 1, nil},
		{"of another", []string{wrong}, 0, berth.ErrPreconditionFailed},
		{"of another, the second time", []string{"a:v1", wrong}, 0, berth.ErrPreconditionFailed},
		{"two", []string{right, wrong}, 1, ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := mustParse(t, empty)
			changes, err := Add(t.Context(), f, from, tt.references...)
			if !errors.Is(err, tt.want) || len(f.Pins()) != tt.pins || len(changes) != tt.pins {
				t.Errorf("got %+v, %v, pins %+v", changes, err, f.Pins())
			}
		})
	}
}

func TestAddIsParallelWithinBounds(t *testing.T) {
	from := &registry{manifests: make(map[string]berth.Manifest)}
	var references []string
	for i := range 3 * parallel {
		references = append(references, fmt.Sprintf("app/%02d:v1", i))
		from.manifests[references[i]] = imageManifest(references[i])
	}
	var mu sync.Mutex
	running, most := 0, 0
	full := make(chan struct{})
	from.before = func(ctx context.Context, _ string) error {
		mu.Lock()
		running++
		most = max(most, running)
		if running == parallel && most == parallel {
			select {
			case <-full:
			default:
				close(full)
			}
		}
		mu.Unlock()
		defer func() { mu.Lock(); running--; mu.Unlock() }()
		select {
		case <-full:
			return nil
		case <-time.After(10 * time.Second):
			return errors.New("the others never came")
		}
	}
	f := mustParse(t, empty)
	changes, err := Add(t.Context(), f, from, references...)
	if err != nil || len(changes) != len(references) || len(f.Pins()) != len(references) {
		t.Fatalf("%d changes, %d pins, %v", len(changes), len(f.Pins()), err)
	}
	if most > parallel {
		t.Errorf("%d at once, at most %d are allowed", most, parallel)
	}
}

func TestCancelledIsToldOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	from := &registry{errors: map[string]error{"denied:v1": berth.ErrDenied}}
	from.before = func(ctx context.Context, reference string) error {
		if reference == "denied:v1" {
			return nil
		}
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	f := mustParse(t, empty)
	_, err := Add(ctx, f, from, "denied:v1", "a:v1", "b:v1", "c:v1")
	if !errors.Is(err, context.Canceled) || strings.Count(err.Error(), context.Canceled.Error()) != 1 {
		t.Errorf("Add: %v", err)
	}
	f = mustParse(t, expand(head+"  a:v1:\n"+fields+"  b:v1:\n"+fields))
	drifts, err := Verify(ctx, f, from)
	if len(drifts) != 0 || err == nil || err.Error() != context.Canceled.Error() {
		t.Errorf("Verify: %+v, %v", drifts, err)
	}
}

func TestVerify(t *testing.T) {
	pinned := indexManifest(amd64+"=1", arm64+"=2")
	from := &registry{manifests: map[string]berth.Manifest{
		"same:v1": pinned, "image:v1": imageManifest("image"), "moved:v1": pinned, "type:v1": pinned, "size:v1": pinned,
		"child:v1": pinned, "more:v1": pinned, "all:v1": pinned, "gone:v1": pinned, "nameless:v1": pinned, "denied:v1": pinned, "bad:v1": pinned,
	}}
	var references []string
	for reference := range from.manifests {
		references = append(references, reference)
	}
	f := mustParse(t, empty)
	if _, err := Add(t.Context(), f, from, references...); err != nil {
		t.Fatal(err)
	}
	if drifts, err := Verify(t.Context(), f, from); err != nil || drifts != nil {
		t.Fatalf("fresh pins drift: %+v, %v", drifts, err)
	}
	spoil := func(reference string, change func(*Pin)) {
		p, _ := f.Pin(reference)
		change(&p)
		if err := f.Set(p); err != nil {
			t.Fatal(err)
		}
	}
	spoil("type:v1", func(p *Pin) { p.MediaType = manifest.MediaTypeDockerManifestList })
	spoil("size:v1", func(p *Pin) { p.Size = 1 })
	spoil("child:v1", func(p *Pin) { p.Platforms["linux/amd64"] = hexOf("9") })
	spoil("more:v1", func(p *Pin) { delete(p.Platforms, "linux/amd64"); p.Platforms["linux/386"] = hexOf("8") })
	spoil("all:v1", func(p *Pin) { p.Platforms = nil; p.Size = 2 })
	other := imageManifest("other")
	from.manifests["moved:v1"] = other
	delete(from.manifests, "gone:v1")
	from.errors = map[string]error{
		"nameless:v1": fmt.Errorf("x: %w", berth.ErrNameUnknown), "denied:v1": berth.ErrDenied,
	}
	from.manifests["bad:v1"] = manifestOf(v1.MediaTypeImageManifest, "{}")

	drifts, err := Verify(t.Context(), f, from)
	is := pinned.Descriptor.Digest
	want := []Drift{
		{"all:v1", is, is, fmt.Sprintf("size is %d, pinned as 2; platform linux/amd64 is %s, pinned as none; platform linux/arm64/v8 is %s, pinned as none", pinned.Descriptor.Size, hexOf("1"), hexOf("2"))},
		{"child:v1", is, is, fmt.Sprintf("platform linux/amd64 is %s, pinned as %s", hexOf("1"), hexOf("9"))},
		{"gone:v1", is, "", "it names nothing any more"},
		{"more:v1", is, is, fmt.Sprintf("platform linux/386 is none, pinned as %s; platform linux/amd64 is %s, pinned as none", hexOf("8"), hexOf("1"))},
		{"moved:v1", is, other.Descriptor.Digest, "it names another manifest"},
		{"nameless:v1", is, "", "it names nothing any more"},
		{"size:v1", is, is, fmt.Sprintf("size is %d, pinned as 1", pinned.Descriptor.Size)},
		{"type:v1", is, is, "mediaType is " + v1.MediaTypeImageIndex + ", pinned as " + manifest.MediaTypeDockerManifestList},
	}
	if !slices.Equal(drifts, want) {
		t.Errorf("drifts\n got %+v\nwant %+v", drifts, want)
	}
	if !errors.Is(err, berth.ErrDenied) || !errors.Is(err, berth.ErrManifestInvalid) || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("got error %v", err)
	}
}

func TestPlatforms(t *testing.T) {
	tests := []struct {
		name, platform, want string
	}{
		{"two parts", amd64, "linux/amd64"},
		{"variant", arm64, "linux/arm64/v8"},
		{"version", windows, "windows(10.0.20348.2227)/amd64"},
		{"version with a space", `{"os":"darwin","architecture":"arm64","os.version":"macOS 14.3"}`, "darwin(macOS 14.3)/arm64"},
		{"attestation", unknown, ""},
		{"no platform", "", ""},
		{"null", "null", ""},
		{"empty", "{}", ""},
		{"no architecture", `{"os":"linux"}`, ""},
		{"slash", `{"os":"linux","architecture":"a/b/c"}`, ""},
		{"newline", `{"os":"linux","architecture":"a\nb"}`, ""},
		{"half unknown", `{"os":"linux","architecture":"unknown"}`, "linux/unknown"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := describe(indexManifest(tt.platform+"=1", tt.platform+"=2"))
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" && p.Platforms != nil || tt.want != "" && (len(p.Platforms) != 1 || p.Platforms[tt.want] != hexOf("1")) {
				t.Errorf("got %v, want the first child for %q", p.Platforms, tt.want)
			}
		})
	}
}

// Those who pin into one file at once do not undo each other's work, and who finds nothing makes no file.
func TestAddToAtOnce(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("directories cannot be locked")
	}
	const writers = 20
	from := &registry{manifests: map[string]berth.Manifest{}}
	for i := range writers {
		from.manifests[fmt.Sprintf("app/%d:v1", i)] = imageManifest(fmt.Sprint(i))
	}
	path := filepath.Join(t.TempDir(), "berth.lock")
	if _, err := AddTo(t.Context(), path, from, "app/absent:v1"); !errors.Is(err, berth.ErrManifestUnknown) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
	var group sync.WaitGroup
	elsewhere := filepath.Join(t.TempDir(), "berth.lock")
	if err := errors.Join(os.WriteFile(path, []byte(empty), 0o644), os.Symlink(path, elsewhere)); err != nil {
		t.Fatal(err)
	}
	for i := range writers {
		group.Go(func() {
			if _, err := AddTo(t.Context(), []string{path, elsewhere}[i%2], from, fmt.Sprintf("app/%d:v1", i)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(f.Pins()); got != writers {
		t.Errorf("%d of %d pins are there", got, writers)
	}
}
