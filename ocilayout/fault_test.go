package ocilayout

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
)

var errFault = errors.New("injected: input/output error")

// countdown fails one step of a story, the n-th, and counts them all.
type countdown struct {
	steps atomic.Int64
	n     int64
	late  bool // the step is done although it fails
	hit   atomic.Pointer[string]
}

func (c *countdown) ask(op durable.Op, name string) error {
	if c.steps.Add(1) != c.n {
		return nil
	}
	what := fmt.Sprintf("%s %s", op, name)
	c.hit.Store(&what)
	if c.late {
		return &durable.Late{Err: errFault}
	}
	return errFault
}

// story is a course of events on one layout, and what was answered.
type story struct {
	*testing.T
	dir     string
	opts    Options
	layout  *Layout
	pushed  map[string]image // by tag
	maybe   map[string]image // whose push failed: whole or absent
	removed map[string]bool  // tags whose removal was answered
	begin   string           // a position from which on the layout was watched; empty: that failed
}

// tell runs all that a layout can do, each thing on a tag of its own, and goes on where something
// fails.
func (s *story) tell() {
	if s.open() != nil {
		return
	}
	s.watch()
	s.push("one", "a1")
	s.push("two", "a2", "a3", "a4")
	s.flush()
	s.push("to be untagged", "gone1")
	s.remove("gone1", func(r berth.Repository, _ image) error { return r.Untag(s.Context(), "gone1", nil) })
	s.push("to be deleted", "gone2")
	s.remove("gone2", func(r berth.Repository, img image) error { return r.DeleteManifest(s.Context(), img.desc.Digest) })
	if done, err := s.layout.Checkout(s.Context()); err == nil {
		s.addOutside("three", "a5")
		done(s.Context())
	}
	s.addOutside("four", "a6")
	s.flush()
	s.layout.GC(s.Context(), &berth.GCOptions{Grace: -1})
	s.layout.Fsck(s.Context(), &berth.FsckOptions{Repair: true})
	s.layout.Raise(s.Context(), Power)
	s.push("five", "a7")
	s.layout.Close()
	if s.open() != nil {
		return
	}
	s.push("six", "a8")
}

func (s *story) open() (err error) {
	s.layout, err = Open(s.Context(), s.dir, &s.opts)
	return err
}

func (s *story) repo() berth.Repository {
	r, err := s.layout.Repository("app/story")
	if err != nil {
		s.Fatal(err)
	}
	return r
}

func (s *story) flush() { s.layout.Flush(s.Context()) }

// push pushes an image and notes under which tags it must be found, or may be.
func (s *story) push(content string, tags ...string) {
	img, err := pushOnce(s.T, s.repo(), content, tags...)
	for _, tag := range tags {
		if s.maybe[tag] = img; err == nil {
			s.pushed[tag] = img
		}
	}
}

// pushOnce is pushImage for a store that may refuse.
func pushOnce(t *testing.T, r berth.Repository, content string, tags ...string) (img image, err error) {
	raw := imageOf(t, []string{"{}", content})
	img = image{config: v1.Descriptor{Digest: digest.FromString("{}")}, layer: v1.Descriptor{Digest: digest.FromString(content)},
		desc: v1.Descriptor{Digest: digest.FromBytes(raw)}}
	for _, blob := range []string{"{}", content} {
		up, err := r.NewUpload(t.Context(), nil)
		if err != nil {
			return img, err
		}
		if _, err := io.WriteString(up, blob[:1]); err != nil {
			return img, errors.Join(err, up.Cancel(t.Context()))
		}
		if err := up.Close(); err != nil {
			return img, err
		}
		if up, err = r.ResumeUpload(t.Context(), up.ID()); err != nil {
			return img, err
		}
		if _, err := io.WriteString(up, blob[1:]); err != nil {
			return img, errors.Join(err, up.Cancel(t.Context()))
		}
		if _, err := up.Commit(t.Context(), digest.FromString(blob)); err != nil {
			return img, err
		}
	}
	_, err = r.PushManifest(t.Context(), raw, &berth.PushOptions{Tags: tags})
	return img, err
}

func (s *story) remove(tag string, do func(berth.Repository, image) error) {
	img, pushed := s.pushed[tag]
	if !pushed {
		return
	}
	delete(s.pushed, tag)
	s.removed[tag] = do(s.repo(), img) == nil
}

// addOutside is another program that adds an image: that it did is never answered, but must not be
// lost.
func (s *story) addOutside(content, tag string) {
	if _, err := os.Stat(filepath.Join(s.dir, v1.ImageIndexFile)); err != nil {
		return // it was never written
	}
	raw := imageOf(s.T, []string{"{}", content})
	for _, blob := range []string{"{}", content, string(raw)} {
		if err := os.WriteFile(filepath.Join(s.dir, blobPath(digest.FromString(blob))), []byte(blob), 0o644); err != nil {
			s.Fatal(err)
		}
	}
	desc := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw)),
		Annotations: map[string]string{v1.AnnotationRefName: "app/story:" + tag}}
	edit(s.T, s.dir, func(index *v1.Index) { index.Manifests = append(index.Manifests, desc) })
	s.pushed[tag] = image{config: v1.Descriptor{Digest: digest.FromString("{}")}, layer: v1.Descriptor{Digest: digest.FromString(content)}, desc: desc}
}

func (s *story) watch() {
	for e, err := range s.layout.Watch(s.Context(), nil) {
		if err == nil {
			s.begin = e.Position
		}
		return
	}
}

// checkEvents compares the log with what was answered: each tag was set once, and removed once where it was.
func (s *story) checkEvents() {
	if s.begin == "" {
		return
	}
	set, removed := map[string]int{}, map[string]int{}
	events, _ := follow(s.T, s.layout, after(s.begin))
	for _, e := range events {
		counts := set
		if e.Kind == berth.EventUntag || e.Kind == berth.EventDelete {
			counts = removed
		}
		for _, tag := range e.Tags {
			counts[tag]++
		}
	}
	tags := maps.Clone(s.maybe)
	maps.Copy(tags, s.pushed) // other programs' too
	for tag := range tags {
		_, err := s.repo().Resolve(s.Context(), tag)
		there := 0
		if err == nil {
			there = 1
		}
		_, answered := s.pushed[tag]
		if n := set[tag]; n > 1 || n-removed[tag] != there || answered && n == 0 || s.removed[tag] && removed[tag] == 0 {
			s.Errorf("%s was set by %d events and removed by %d; it resolves to %v; %s", tag, n, removed[tag], err, tellEvents(events))
		}
	}
}

// check looks at the whole store.
func (s *story) check() {
	s.flush()
	s.checkEvents()
	for tag, img := range s.pushed {
		wantImage(s.T, s.layout, "app/story", tag, img)
	}
	for tag, img := range s.maybe {
		if _, err := s.repo().Resolve(s.Context(), tag); err == nil && !s.removed[tag] {
			wantImage(s.T, s.layout, "app/story", tag, img)
		}
	}
	for tag, answered := range s.removed {
		if _, err := s.repo().Resolve(s.Context(), tag); answered && !errors.Is(err, berth.ErrManifestUnknown) {
			s.Errorf("%s was removed: %v", tag, err)
		}
	}
	report, err := s.layout.Fsck(s.Context(), nil)
	if err != nil || len(report.Problems) > 0 {
		s.Errorf("fsck: %+v, %v", report, err)
	}
	for _, name := range names(s.T, s.dir) {
		if name == "" {
			continue
		}
		if _, tag, _ := parseRefName(name); s.pushed[tag].desc.Digest == "" && s.maybe[tag].desc.Digest == "" {
			s.Errorf("index.json names %s", name)
		}
	}
}

// quickDir is a directory in memory, where there is one: what is flushed, and when, is not the point
// here, and there are many flushes.
func quickDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "berth-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func tellStory(t *testing.T, d Durability, c *countdown) {
	s := &story{T: t, dir: quickDir(t), opts: Options{Durability: d, fault: c.ask}, pushed: map[string]image{}, maybe: map[string]image{}, removed: map[string]bool{}}
	s.tell()
	if s.layout != nil {
		s.check()
		s.layout.Close()
	}
	s.opts.fault = nil
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	s.check()
	if err := s.layout.Close(); err != nil {
		t.Error(err)
	}
}

// Each write, flush, rename and commit of a long story fails once, not done and done; after each the
// whole store is looked at, as it is and after a restart.
func TestEachStepFailsOnce(t *testing.T) {
	for _, d := range []Durability{Process, Power} {
		whole := &countdown{n: -1}
		tellStory(t, d, whole)
		for n := int64(1); n <= whole.steps.Load(); n++ {
			for _, late := range []bool{false, true} {
				c := &countdown{n: n, late: late}
				name := fmt.Sprintf("%s/step=%d/late=%v", d, n, late)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					tellStory(t, d, c)
					if t.Failed() && c.hit.Load() != nil {
						t.Logf("failed was: %s", *c.hit.Load())
					}
				})
			}
		}
	}
}
