package main

import (
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/manifest"
)

// made is a layout that one writer has filled, and its history.
type made struct {
	dir     string
	history *History
}

// makeLayout has a writer do some work. The layout is closed, and all its operations were answered.
func makeLayout(t *testing.T) made {
	t.Helper()
	dir := t.TempDir()
	layout, err := openLayout(t.Context(), dir, "process")
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	left := &atomic.Int64{}
	left.Store(1 << 20)
	w := &writer{layout: layout, tell: &teller{out: &lines}, random: rand.New(rand.NewPCG(1, 2)), shared: newShared(1), left: left}
	for range 60 {
		w.step(t.Context())
	}
	if err := layout.Close(); err != nil {
		t.Fatal(err)
	}
	h := NewHistory(nil)
	for line := range strings.Lines(lines.String()) {
		e, err := decode([]byte(line))
		if err == nil {
			err = h.Take(e, time.Now())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if refused := h.Refused(); len(refused) > 0 {
		t.Fatal(refused)
	}
	return made{dir, h}
}

func (m made) verify(t *testing.T, x Expectation) []Finding {
	t.Helper()
	return newVerifier(Task{Layout: m.dir, Durability: "process", Expect: x, Before: true}).run(t.Context()).Findings
}

func TestASoundLayoutPasses(t *testing.T) {
	m := makeLayout(t)
	x := m.history.Expect(AfterKill())
	if len(x.Tags) < 3 || len(x.Manifests) < 10 || len(x.Blobs) < 10 {
		t.Fatalf("the writer did little: %d tags, %d manifests, %d blobs", len(x.Tags), len(x.Manifests), len(x.Blobs))
	}
	if findings := m.verify(t, x); len(findings) > 0 {
		t.Errorf("found %q", findings)
	}
}

var neverPushed = digest.FromString("never pushed").String()

var damages = []struct {
	name  string
	spoil func(t *testing.T, m made, x *Expectation)
	class Class
}{
	{"a tag that is not there", func(_ *testing.T, _ made, x *Expectation) { x.Tags["app/one:v1"] = []string{neverPushed} }, Lost},
	{"a manifest that is not there", func(_ *testing.T, _ made, x *Expectation) { x.Manifests["app/one@"+neverPushed] = There }, Lost},
	{"a blob that is not there", func(_ *testing.T, _ made, x *Expectation) { x.Blobs = []string{"app/one@" + neverPushed} }, Lost},
	{"a manifest that came back", func(_ *testing.T, _ made, x *Expectation) { x.Manifests[present(*x)] = Gone }, Lost},
	{"a tag that nobody pushed", func(_ *testing.T, _ made, x *Expectation) { delete(x.Tags, tagged(*x)) }, Lost},
	{"a tag at what was never pushed", func(_ *testing.T, _ made, x *Expectation) {
		name := tagged(*x)
		for known := range x.Manifests {
			if strings.HasSuffix(known, x.Tags[name][0]) {
				delete(x.Manifests, known)
			}
		}
		x.Tags[name] = []string{absent}
	}, Wrong},
	{"a layer with other bytes", func(t *testing.T, m made, x *Expectation) { spoilLayer(t, m.dir, present(*x)) }, Wrong},
	{"a file that is gone", func(t *testing.T, m made, x *Expectation) { remove(t, m.dir, present(*x)) }, Unreadable},
	{"an index.json that does not parse", func(t *testing.T, m made, _ *Expectation) { write(t, filepath.Join(m.dir, "index.json"), "{") }, Unreadable},
	{"no layout", func(t *testing.T, m made, _ *Expectation) { write(t, filepath.Join(m.dir, "oci-layout"), "{}") }, Unreadable},
}

// Every kind of damage is found, and called what it is.
func TestDamageIsFound(t *testing.T) {
	for _, test := range damages {
		t.Run(test.name, func(t *testing.T) {
			m := makeLayout(t)
			x := m.history.Expect(AfterKill())
			test.spoil(t, m, &x)
			findings := m.verify(t, x)
			if !slices.ContainsFunc(findings, func(f Finding) bool { return f.Class == test.class }) {
				t.Errorf("found %q, nothing of which is %s", findings, test.class)
			}
		})
	}
}

// present returns a manifest that is to be there and is no index, as its name.
func present(x Expectation) string {
	for name, allowed := range x.Tags {
		repo, _, _ := cutTag(name)
		if allowed[0] != absent {
			return repo + "@" + allowed[0]
		}
	}
	return ""
}

func tagged(x Expectation) string {
	for name, allowed := range x.Tags {
		if allowed[0] != absent {
			return name
		}
	}
	return ""
}

func path(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded())
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	_, d := cutManifest(name)
	if err := os.Remove(path(dir, d)); err != nil {
		t.Fatal(err)
	}
}

// spoilLayer changes a byte of the first blob below a manifest, and leaves its size.
func spoilLayer(t *testing.T, dir, name string) {
	t.Helper()
	_, d := cutManifest(name)
	desc := firstBlob(t, dir, d)
	f, err := os.OpenFile(path(dir, desc.Digest), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(f, first); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{first[0] ^ 1}, 0); err != nil {
		t.Fatal(err)
	}
}

func firstBlob(t *testing.T, dir string, d digest.Digest) v1.Descriptor {
	t.Helper()
	raw, err := os.ReadFile(path(dir, d))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := manifest.Parse("", raw)
	if err != nil {
		t.Fatal(err)
	}
	if doc.Kind == manifest.Index {
		return firstBlob(t, dir, doc.Manifests[0].Digest)
	}
	return *doc.Config
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A verifier that dies is a finding, not an end of the program.
func TestAVerifierThatDies(t *testing.T) {
	task := Task{Layout: t.TempDir(), Durability: "process"}
	task.Expect.Manifests = map[string]Presence{"NO NAME@x": There}
	result, err := task.run(t.Context())
	if err != nil || len(result.Findings) != 1 || result.Findings[0].Class != Unreadable {
		t.Errorf("got %+v, %v", result, err)
	}
}
