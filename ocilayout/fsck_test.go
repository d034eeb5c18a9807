package ocilayout

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/berthoci/berth"
)

func fsck(t *testing.T, l *Layout, repair bool) berth.FsckReport {
	t.Helper()
	report, err := l.Fsck(t.Context(), &berth.FsckOptions{Repair: repair})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func wantProblem(t *testing.T, report berth.FsckReport, kind string, d digest.Digest, reference string, repaired bool) {
	t.Helper()
	if len(report.Problems) != 1 {
		t.Fatalf("got %+v, want one problem", report.Problems)
	}
	p := report.Problems[0]
	if p.Kind != kind || p.Digest != d || p.Repaired != repaired || !slices.Contains(p.References, reference) {
		t.Errorf("got %+v, want %s of %s for %s, repaired %v", p, kind, d, reference, repaired)
	}
}

func TestACheckOfASoundLayout(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	img := pushImage(t, r, "layer", "v1", "v2")
	pushIndex(t, r, "multi", img.desc)
	report := fsck(t, l, true)
	if len(report.Problems) != 0 || report.Blobs != 2 || report.Manifests != 2 || report.Tags != 3 || report.Unknown != 0 || report.Sparse != 0 {
		t.Errorf("got %+v", report)
	}
}

// What is there but wrong is found, put aside, and healed by the next push.
func TestADamagedBlobIsFoundAndHealed(t *testing.T) {
	damages := map[string]struct {
		kind   string
		damage func(path string) error
	}{
		"altered":     {berth.ProblemDamaged, func(path string) error { return os.WriteFile(path, []byte("The layer"), 0o644) }},
		"short":       {berth.ProblemDamaged, func(path string) error { return os.Truncate(path, 3) }},
		"a directory": {berth.ProblemDamaged, func(path string) error { return errors.Join(os.Remove(path), os.MkdirAll(path+"/x", 0o755)) }},
		"a link":      {berth.ProblemDamaged, func(path string) error { return errors.Join(os.Remove(path), os.Symlink("/etc/hostname", path)) }},
		"gone":        {berth.ProblemMissing, os.Remove},
	}
	for name, c := range damages {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir)
			r, other := repo(t, l, "app/hello"), repo(t, l, "app/other")
			img := pushImage(t, r, "the layer", "v1")
			if err := c.damage(filepath.Join(dir, blobPath(img.layer.Digest))); err != nil {
				t.Fatal(err)
			}
			reference := "app/hello@" + string(img.layer.Digest)
			wantProblem(t, fsck(t, l, false), c.kind, img.layer.Digest, reference, false)
			wantProblem(t, fsck(t, l, true), c.kind, img.layer.Digest, reference, c.kind == berth.ProblemDamaged)
			if _, err := r.StatBlob(t.Context(), img.layer.Digest); !errors.Is(err, berth.ErrBlobUnknown) {
				t.Errorf("it is still vouched for: %v", err)
			}
			uploadBlob(t, other, "the layer")
			wantImage(t, l, "app/hello", "v1", img)
			if report := fsck(t, l, false); len(report.Problems) != 0 {
				t.Errorf("healed, and still %+v", report.Problems)
			}
		})
	}
}

func TestADamagedManifestIsFoundAndHealed(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	img := pushImage(t, r, "the layer", "v1")
	if err := os.WriteFile(filepath.Join(dir, blobPath(img.desc.Digest)), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, fsck(t, l, true), berth.ProblemDamaged, img.desc.Digest, "app/hello:v1", true)
	wantFile(t, dir, img.desc.Digest, false)
	wantImage(t, l, "app/hello", "v1", pushImage(t, r, "the layer", "v1"))
}

func TestADanglingTagIsFoundAndDropped(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	img := pushImage(t, r, "layer", "v1", "v2")
	err := l.writer.commit(t.Context(), change{write: func(tx *bolt.Tx, gen uint64) error {
		absent := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("no such manifest"), Size: 16}
		return put(tx, bucketTags, key("app/hello", "lost"), tagRecord{Generation: gen, Descriptor: absent})
	}})
	if err != nil {
		t.Fatal(err)
	}
	lost := digest.FromString("no such manifest")
	wantProblem(t, fsck(t, l, false), berth.ProblemDangling, lost, "app/hello:lost", false)
	wantProblem(t, fsck(t, l, true), berth.ProblemDangling, lost, "app/hello:lost", true)
	wantTags(t, r, "v1", "v2")
	wantImage(t, l, "app/hello", "v1", img)
}

func TestACheckCountsSparseImagesAndUnknownFiles(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	r := repo(t, l, "app/hello")
	if _, err := r.PushManifest(t.Context(), imageOf(t, []string{"absent", "absent too"}), &berth.PushOptions{Tags: []string{"sparse"}, AllowMissing: true}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, blobPath(digest.FromString("stray"))), []byte("stray"), 0o644); err != nil {
		t.Fatal(err)
	}
	if report := fsck(t, l, true); report.Sparse != 1 || report.Unknown != 1 || len(report.Problems) != 0 {
		t.Errorf("got %+v, want one sparse image, one unknown file and no problem", report)
	}
}

// What somebody took out of a repository though an image there needs it is found, also if the bytes are
// there for others; what never was there is not missed.
func TestACheckFindsWhatWasTakenOut(t *testing.T) {
	l := open(t, t.TempDir())
	r := repo(t, l, "app/hello")
	img := pushImage(t, r, "layer", "v1")
	pushImage(t, repo(t, l, "app/other"), "layer", "v1")
	absent := v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 1}
	raw := encode(t, v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{absent}})
	if _, err := r.PushManifest(t.Context(), raw, &berth.PushOptions{AllowMissing: true}); err != nil {
		t.Fatal(err)
	}
	if err := r.DeleteBlob(t.Context(), img.layer.Digest); err != nil {
		t.Fatal(err)
	}
	report, err := l.Fsck(t.Context(), nil)
	if err != nil || len(report.Problems) != 1 || report.Sparse != 1 {
		t.Fatalf("got %+v, %v", report, err)
	}
	p := report.Problems[0]
	if p.Kind != berth.ProblemMissing || p.Digest != img.layer.Digest || !slices.Equal(p.References, []string{"app/hello:v1"}) {
		t.Errorf("got %+v", p)
	}
	pushImage(t, r, "layer", "v1")
	if report, err := l.Fsck(t.Context(), nil); err != nil || len(report.Problems) != 0 {
		t.Errorf("pushed again: %+v, %v", report, err)
	}
}
