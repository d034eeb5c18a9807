package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/manifest/schema1"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/source"
)

// writer puts what an image consists of into a place, until something fails.
type writer struct {
	to  source.Destination
	err error
}

func openWriter(ts *testscript.TestScript, place string) *writer {
	form, path, name, err := source.Split(place)
	ts.Check(err)
	to, err := source.ParseDestination(form + ":" + ts.MkAbs(path) + ":" + name)
	ts.Check(err)
	return &writer{to: to}
}

func (w *writer) put(mediaType, content string) v1.Descriptor {
	desc := manifest.Descriptor(mediaType, []byte(content))
	w.err = errors.Join(w.err, w.to.Put(context.Background(), desc, strings.NewReader(content)))
	return desc
}

func (w *writer) putJSON(mediaType string, v any) v1.Descriptor {
	raw, err := json.Marshal(v)
	w.err = errors.Join(w.err, err)
	return w.put(mediaType, string(raw))
}

func (w *writer) commit(ts *testscript.TestScript, root v1.Descriptor) {
	ts.Check(errors.Join(w.err, w.to.Commit(context.Background(), root), w.to.Close()))
}

// digested DIGEST
//
// The standard output of the last command has that digest, so it is these bytes and no other.
func digested(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 1, "digested DIGEST")
	if got := digest.FromString(ts.ReadFile("stdout")); string(got) != args[0] {
		ts.Fatalf("the output has the digest %s, want %s", got, args[0])
	}
}

// index PLACE VARIABLE
//
// Writes an index of images for linux/amd64 and linux/arm64. The variable is its digest, VARIABLE_amd64
// and VARIABLE_arm64 are those of the images.
func index(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 2, "index PLACE VARIABLE")
	w := openWriter(ts, args[0])
	all := v1.Index{MediaType: v1.MediaTypeImageIndex}
	all.SchemaVersion = 2
	for _, architecture := range []string{"amd64", "arm64"} {
		m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Layers: []v1.Descriptor{}}
		m.SchemaVersion = 2
		m.Config = w.put(v1.MediaTypeImageConfig, fmt.Sprintf(`{"os":"linux","architecture":%q}`, architecture))
		child := w.putJSON(m.MediaType, m)
		child.Platform = &v1.Platform{OS: "linux", Architecture: architecture}
		all.Manifests = append(all.Manifests, child)
		ts.Setenv(args[1]+"_"+architecture, string(child.Digest))
	}
	root := w.putJSON(all.MediaType, all)
	w.commit(ts, root)
	ts.Setenv(args[1], string(root.Digest))
}

// referrer PLACE TYPE DIR DIGEST VARIABLE
//
// Writes an artifact of a type, whose subject is the manifest of that digest in the layout DIR. The
// variable is its digest.
func referrer(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 5, "referrer PLACE TYPE DIR DIGEST VARIABLE")
	subject, err := os.ReadFile(blobOf(ts, args[2:4]))
	ts.Check(err)
	desc := manifest.Descriptor(v1.MediaTypeImageManifest, subject)
	w := openWriter(ts, args[0])
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, ArtifactType: args[1], Subject: &desc, Layers: []v1.Descriptor{}}
	m.SchemaVersion = 2
	m.Config = w.put(v1.MediaTypeEmptyJSON, "{}")
	root := w.putJSON(m.MediaType, m)
	w.commit(ts, root)
	ts.Setenv(args[4], string(root.Digest))
}

// schema1 HOST REPOSITORY TAG
//
// Pushes an image of Docker's schema 1 to a registry.
func pushSchema1(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 3, "schema1 HOST REPOSITORY TAG")
	ctx := context.Background()
	registry, err := sdk.NewRemotes(nil).Registry(args[0])
	ts.Check(err)
	repo, err := registry.Repository(args[1])
	ts.Check(err)
	upload, err := repo.NewUpload(ctx, nil)
	ts.Check(err)
	_, err = upload.Write([]byte("layer"))
	ts.Check(err)
	blob, err := upload.Commit(ctx, digest.FromString("layer"))
	ts.Check(err)
	layer, err := schema1.NewLayer(blob.Digest, fmt.Appendf(nil, `{"id":"%064d","author":"Ada","docker_version":"1.6.0"}`, 1))
	ts.Check(err)
	target := schema1.Target{Ref: berth.Reference{Repository: args[1], Tag: args[2]}}
	m, err := schema1.Build(target, "amd64", []schema1.Layer{layer})
	ts.Check(err)
	_, err = repo.PushManifest(ctx, m.Raw(), &berth.PushOptions{Tags: args[2:]})
	ts.Check(err)
}

func TestReportLinesLeaveOutWhatIsNotKnown(t *testing.T) {
	r := &manifest.Report{Digest: "sha256:1", MediaType: "a/b"}
	want := "digest        sha256:1\ntype          a/b"
	if got := strings.Join(reportLines(r), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestReportLinesTellAll(t *testing.T) {
	subject := v1.Descriptor{Digest: "sha256:5"}
	r := &manifest.Report{Name: "app", Digest: "sha256:1", MediaType: "a/b", ArtifactType: "x/y", Subject: &subject,
		Annotations: map[string]string{"b": "2", "a": "1"}, OS: "windows", OSVersion: "10.0.1", Architecture: "amd64",
		Entrypoint: []string{"/bin/a b", "-c"}, ExposedPorts: []string{"1/tcp", "2/tcp"},
		Layers:    []manifest.ReportedLayer{{Digest: "sha256:2", Size: 2048, Command: strings.Repeat("é", 61)}, {Digest: "sha256:3"}},
		TotalSize: 3 << 20,
		Manifests: []manifest.ReportedManifest{{Digest: "sha256:4", Platform: "linux/arm/v7"}, {Digest: "sha256:6", ArtifactType: "s/t", Size: 9}}}
	want := `name          app
digest        sha256:1
type          a/b
artifact      x/y
subject       sha256:5
annotations   a=1
              b=2
platform      windows(10.0.1)/amd64
entrypoint    "/bin/a b" "-c"
ports         1/tcp, 2/tcp
layers        sha256:2  2.0 KiB  ` + strings.Repeat("é", 60) + `…
              sha256:3
size          3.0 MiB
manifests     sha256:4  linux/arm/v7
              sha256:6  s/t  9 B`
	if got := strings.Join(reportLines(r), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Who makes an image chooses what its labels say, and must not write to the terminal of who looks at it.
func TestReportLinesAreHarmless(t *testing.T) {
	r := &manifest.Report{Digest: "sha256:1", MediaType: "a/b", Author: "\x1b[2J\nAda\u202e", Labels: map[string]string{"a\r": "\x00b"},
		Cmd: []string{"\x1b"}, Layers: []manifest.ReportedLayer{{Digest: "sha256:2", Command: "a\tb"}}}
	for _, line := range reportLines(r) {
		if strings.ContainsAny(line, "\x1b\n\r\x00\t\u202e") {
			t.Errorf("got %q", line)
		}
	}
}

func TestTagLine(t *testing.T) {
	many := make([]string, sdk.MaxReportedTags)
	for i := range many {
		many[i] = fmt.Sprint("v", i)
	}
	for _, c := range []struct {
		tags []string
		want string
	}{
		{nil, ""},
		{many[:2], "v0, v1"},
		{many[:10], "v0, v1, v2, v3, v4, v5, v6, v7, v8, v9"},
		{many[:12], "v0, v1, v2, v3, v4, v5, v6, v7, v8, v9 and 2 more"},
		{many, "v0, v1, v2, v3, v4, v5, v6, v7, v8, v9 and more: berth ls lists all"},
	} {
		if got := tagLine(c.tags); got != c.want {
			t.Errorf("%d tags: got %q, want %q", len(c.tags), got, c.want)
		}
	}
}

func TestRepositoryOf(t *testing.T) {
	for ref, want := range map[string]string{
		"app":                       "app",
		"app/hello:v1":              "app/hello",
		"app/hello:v1@sha256:1":     "app/hello",
		"app/hello@sha256:1":        "app/hello",
		"127.0.0.1:5000/app:v1":     "127.0.0.1:5000/app",
		"localhost/app@sha256:1":    "localhost/app",
		"registry.example.com/a/b":  "registry.example.com/a/b",
		"registry.example.com/a:v1": "registry.example.com/a",
	} {
		if got := repositoryOf(ref); got != want {
			t.Errorf("%s: got %s, want %s", ref, got, want)
		}
	}
}
