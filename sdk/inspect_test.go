package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/manifest/schema1"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/remote"
)

// wantImage checks what configOf and topJSON say, and the one layer.
func wantImage(t *testing.T, what string, r *manifest.Report, architecture string) {
	t.Helper()
	if r.Created == nil || r.Created.Year() != 2015 || r.Author != "Ada" || r.DockerVersion != "1.6.0" {
		t.Errorf("%s: made at %v by %q with %q", what, r.Created, r.Author, r.DockerVersion)
	}
	if r.OS != "linux" || r.Architecture != architecture {
		t.Errorf("%s: it is for %s/%s", what, r.OS, r.Architecture)
	}
	if r.Labels["k"] != "v" || r.User != "ada" {
		t.Errorf("%s: labels %v, user %q", what, r.Labels, r.User)
	}
	wantEqual(t, what+": env", r.Env, []string{"A=b"})
	wantEqual(t, what+": entrypoint", r.Entrypoint, []string{"/bin/sh", "-c"})
	if len(r.Layers) != 1 || r.Layers[0].Digest != digest.FromString("layer") || r.Layers[0].Command != "step 1" {
		t.Errorf("%s: layers %+v", what, r.Layers)
	}
}

func TestInspectReportsImagesOfEveryFormat(t *testing.T) {
	for place, s := range shelves(t) {
		amd64 := &sdk.InspectOptions{Platform: "linux/amd64"}
		s.image(t, v1.MediaTypeImageManifest, "amd64", "oci")
		s.image(t, manifest.MediaTypeDockerManifest, "amd64", "docker")
		s.index(t, v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, "index")
		s.index(t, manifest.MediaTypeDockerManifestList, manifest.MediaTypeDockerManifest, "list")
		s.schema1(t, false, "unsigned")
		s.schema1(t, true, "signed")
		for tag, c := range map[string]struct {
			opts      *sdk.InspectOptions
			mediaType string
		}{
			"oci":      {nil, v1.MediaTypeImageManifest},
			"docker":   {nil, manifest.MediaTypeDockerManifest},
			"index":    {amd64, v1.MediaTypeImageManifest},
			"list":     {amd64, manifest.MediaTypeDockerManifest},
			"unsigned": {nil, schema1.MediaType},
			"signed":   {nil, schema1.MediaTypeSigned},
		} {
			what := place + ", " + tag
			r, err := s.images.Inspect(t.Context(), s.name+":"+tag, c.opts)
			must(t, err)
			if r.MediaType != c.mediaType {
				t.Errorf("%s: media type %s", what, r.MediaType)
			}
			if r.Name != "app/hello" || r.Tag != tag {
				t.Errorf("%s: it is called %s:%s", what, r.Name, r.Tag)
			}
			wantEqual(t, what+": tags", r.RepoTags, []string{"docker", "index", "list", "oci", "signed", "unsigned"})
			wantImage(t, what, r, "amd64")
		}
	}
}

func TestInspectReportsArtifacts(t *testing.T) {
	for place, s := range shelves(t) {
		subject := s.image(t, v1.MediaTypeImageManifest, "amd64", "v1")
		config := s.blob(t, v1.MediaTypeEmptyJSON, "{}")
		m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, ArtifactType: "application/x-note", Config: config,
			Layers: []v1.Descriptor{s.blob(t, "text/plain", "a note")}, Subject: &subject, Annotations: map[string]string{"a": "b"}}
		m.SchemaVersion = 2
		s.put(t, m.MediaType, encoded(m), "note")
		r, err := s.images.Inspect(t.Context(), s.name+":note", nil)
		must(t, err)
		if r.ArtifactType != "application/x-note" || r.Subject == nil || r.Subject.Digest != subject.Digest || r.Annotations["a"] != "b" || len(r.Layers) != 1 {
			t.Errorf("%s: got %+v", place, r)
		}
	}
}

func TestInspectByDigest(t *testing.T) {
	for place, s := range shelves(t) {
		image := s.image(t, v1.MediaTypeImageManifest, "amd64", "v1")
		old := s.schema1(t, true, "old")
		for _, d := range []digest.Digest{image.Digest, old.Digest()} {
			for ref, tag := range map[string]string{s.name + "@" + string(d): "", s.name + ":v9@" + string(d): "v9"} {
				r, err := s.images.Inspect(t.Context(), ref, nil)
				must(t, err)
				if r.Digest != d || (r.Tag != tag && d == image.Digest) {
					t.Errorf("%s, %s: got %s, tag %q", place, ref, r.Digest, r.Tag)
				}
				wantImage(t, place+", "+ref, r, "amd64")
			}
		}
	}
}

func TestInspectWithoutATagTakesLatestElseTheFirst(t *testing.T) {
	for place, s := range shelves(t) {
		s.image(t, v1.MediaTypeImageManifest, "arm64", "b", "c")
		want := "b"
		for range 2 {
			r, err := s.images.Inspect(t.Context(), s.name, nil)
			must(t, err)
			if r.Tag != want || len(r.RepoTags) < 2 {
				t.Errorf("%s: got the tag %s of %q", place, r.Tag, r.RepoTags)
			}
			s.image(t, v1.MediaTypeImageManifest, "amd64", "latest")
			want = "latest"
		}
	}
}

func TestInspectOfWhatIsNotThere(t *testing.T) {
	for place, s := range shelves(t) {
		absent := string(digest.FromString("absent"))
		_, err := s.images.Inspect(t.Context(), s.name, nil)
		wantErr(t, place+", no repository", err, berth.ErrNameUnknown)
		untagged := s.image(t, v1.MediaTypeImageManifest, "amd64")
		_, err = s.images.Inspect(t.Context(), s.name, nil)
		wantErr(t, place+", no tags", err, berth.ErrManifestUnknown)
		if err == nil || !strings.HasPrefix(err.Error(), s.name+": ") || !strings.Contains(err.Error(), "has no tags: name a digest") {
			t.Errorf("%s, no tags: got %v", place, err)
		}
		for _, ref := range []string{":v1", ":latest", "@" + absent} {
			_, err = s.images.Inspect(t.Context(), s.name+ref, nil)
			wantErr(t, place+ref, err, berth.ErrManifestUnknown)
		}
		r, err := s.images.Inspect(t.Context(), s.name+"@"+string(untagged.Digest), nil)
		if err != nil || len(r.RepoTags) != 0 {
			t.Errorf("%s, by digest: got %+v, %v", place, r, err)
		}
	}
}

func TestInspectOfAnIndexListsItsChildren(t *testing.T) {
	for place, s := range shelves(t) {
		list, amd64, arm64 := s.index(t, v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, "v1")
		r, err := s.images.Inspect(t.Context(), s.name+":v1", nil)
		must(t, err)
		if r.Digest != list.Digest || r.IndexDigest != "" || len(r.Manifests) != 2 || r.Architecture != "" {
			t.Fatalf("%s: got %+v", place, r)
		}
		for i, want := range []v1.Descriptor{amd64, arm64} {
			if got := r.Manifests[i]; got.Digest != want.Digest || got.Platform != "linux/"+want.Platform.Architecture {
				t.Errorf("%s: child %d is %+v", place, i, got)
			}
		}
	}
}

func TestInspectSelectsTheImageForAPlatform(t *testing.T) {
	for place, s := range shelves(t) {
		for _, mediaType := range []string{v1.MediaTypeImageIndex, manifest.MediaTypeDockerManifestList} {
			list, _, arm64 := s.index(t, mediaType, manifest.MediaTypeDockerManifest, "v1")
			for _, ref := range []string{":v1", "@" + string(list.Digest)} {
				r, err := s.images.Inspect(t.Context(), s.name+ref, &sdk.InspectOptions{Platform: "linux/aarch64"})
				must(t, err)
				if r.Digest != arm64.Digest || r.IndexDigest != list.Digest {
					t.Errorf("%s, %s: got %s of %s", place, ref, r.Digest, r.IndexDigest)
				}
				wantImage(t, place+ref, r, "arm64")
			}
		}
	}
}

func TestInspectSelectsSchema1FromAList(t *testing.T) {
	for place, s := range shelves(t) {
		old := s.schema1(t, true, "old")
		child := v1.Descriptor{MediaType: old.MediaType(), Digest: old.Digest(), Size: int64(len(old.Raw())),
			Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}
		list := s.put(t, manifest.MediaTypeDockerManifestList, indexOf(manifest.MediaTypeDockerManifestList, child), "v1")
		r, err := s.images.Inspect(t.Context(), s.name+":v1", &sdk.InspectOptions{Platform: "linux/amd64"})
		must(t, err)
		if r.Digest != old.Digest() || r.IndexDigest != list.Digest || r.Tag != "v1" {
			t.Errorf("%s: got %+v", place, r)
		}
		wantImage(t, place, r, "amd64")
	}
}

func TestInspectOfAListWithoutThePlatformSaysWhatThereIs(t *testing.T) {
	for place, s := range shelves(t) {
		s.index(t, manifest.MediaTypeDockerManifestList, manifest.MediaTypeDockerManifest, "v1")
		_, err := s.images.Inspect(t.Context(), s.name+":v1", &sdk.InspectOptions{Platform: "linux/s390x"})
		wantErr(t, place, err, berth.ErrManifestUnknown)
		for _, says := range []string{s.name + ":v1: ", "no supported platform", "linux/s390x", "linux/amd64", "linux/arm64"} {
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v does not say %q", place, err, says)
			}
		}
		_, err = s.images.Inspect(t.Context(), s.name+":v1", &sdk.InspectOptions{Platform: "s390x"})
		wantErr(t, place+", no platform", err, berth.ErrUnsupported)
	}
}

func TestInspectTakesWhatIsNoIndexWhateverItIsFor(t *testing.T) {
	for place, s := range shelves(t) {
		s.image(t, v1.MediaTypeImageManifest, "amd64", "v1")
		r, err := s.images.Inspect(t.Context(), s.name+":v1", &sdk.InspectOptions{Platform: "linux/arm64"})
		must(t, err)
		wantImage(t, place, r, "amd64")
	}
}

// A registry that lies is found out, whatever it lies about.
func TestInspectBelievesNoBytesThatAreOthers(t *testing.T) {
	config := describeAs(v1.MediaTypeImageConfig, configOf("amd64"))
	image := imageOf(v1.MediaTypeImageManifest, config)
	child := manifest.Descriptor(v1.MediaTypeImageManifest, image)
	child.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
	index := indexOf(v1.MediaTypeImageIndex, child)
	byDigest := "manifests/" + string(child.Digest)
	blob := "blobs/" + string(config.Digest)
	honest := map[string]page{
		"tags/list":    {body: `{"tags":["v1","i"]}`},
		"manifests/v1": pageOf(v1.MediaTypeImageManifest, image),
		"manifests/i":  pageOf(v1.MediaTypeImageIndex, index),
		byDigest:       pageOf(v1.MediaTypeImageManifest, image),
		blob:           {body: configOf("amd64")},
	}
	other := imageOf(v1.MediaTypeImageManifest, describeAs(v1.MediaTypeImageConfig, "{}"))
	lie := page{v1.MediaTypeImageManifest, string(other), 0, string(child.Digest)}
	nonsense := page{v1.MediaTypeImageManifest, "{}", 0, string(child.Digest)}
	for what, c := range map[string]struct {
		ref, path string
		lie       page
		want      error
	}{
		"nothing":                             {":v1", "", page{}, nil},
		"a manifest, by digest":               {"@" + string(child.Digest), byDigest, lie, berth.ErrDigestInvalid},
		"a manifest, by digest, told as such": {"@" + string(child.Digest), byDigest, pageOf(v1.MediaTypeImageManifest, other), berth.ErrDigestInvalid},
		"no manifest at all, by digest":       {"@" + string(child.Digest), byDigest, nonsense, berth.ErrDigestInvalid},
		"a manifest, by tag":                  {":v1", "manifests/v1", lie, berth.ErrDigestInvalid},
		"no manifest at all, by tag":          {":v1", "manifests/v1", nonsense, berth.ErrDigestInvalid},
		"a child of an index":                 {":i", byDigest, lie, berth.ErrDigestInvalid},
		"a child's bytes, told as such":       {":i", byDigest, pageOf(v1.MediaTypeImageManifest, other), berth.ErrDigestInvalid},
		"no child":                            {":i", byDigest, page{status: http.StatusNotFound}, berth.ErrManifestUnknown},
		"a config of the same size":           {":v1", blob, page{body: strings.Replace(configOf("amd64"), "Ada", "Eve", 1)}, berth.ErrDigestInvalid},
		"a config that is longer":             {":v1", blob, page{body: configOf("amd64") + " "}, berth.ErrDigestInvalid},
		"a config that is shorter":            {":v1", blob, page{body: "{}"}, berth.ErrDigestInvalid},
		"a config without end":                {":v1", blob, page{body: strings.Repeat(" ", berth.MaxManifestSize+2)}, berth.ErrDigestInvalid},
		"no config":                           {":v1", blob, page{status: http.StatusNotFound}, berth.ErrBlobUnknown},
	} {
		pages := map[string]page{}
		for path, p := range honest {
			pages[path] = p
		}
		if c.path != "" {
			pages[c.path] = c.lie
		}
		s := remoteShelf(t, madeUp(t, pages))
		opts := &sdk.InspectOptions{Platform: "linux/amd64"}
		r, err := s.images.Inspect(t.Context(), s.name+c.ref, opts)
		wantErr(t, what, err, c.want)
		if err != nil && (r != nil || !strings.HasPrefix(err.Error(), s.name+c.ref+": ")) {
			t.Errorf("%s: got %+v, %v", what, r, err)
		}
		if err != nil && c.path == blob {
			_, err = s.images.Config(t.Context(), s.name+c.ref, opts)
			wantErr(t, what+": Config", err, c.want)
			if !strings.Contains(err.Error(), "config "+string(config.Digest)) {
				t.Errorf("%s: %v does not name the config", what, err)
			}
		}
	}
}

func TestInspectReadsNoConfigBeyondTheLimit(t *testing.T) {
	config := describeAs(v1.MediaTypeImageConfig, "{}")
	config.Size = berth.MaxManifestSize + 1
	s := remoteShelf(t, madeUp(t, map[string]page{
		"manifests/v1": pageOf(v1.MediaTypeImageManifest, imageOf(v1.MediaTypeImageManifest, config)),
	}))
	_, err := s.images.Inspect(t.Context(), s.name+":v1", nil)
	wantErr(t, "a config beyond the limit", err, berth.ErrSizeInvalid)
}

func TestInspectOfAConfigThatIsNone(t *testing.T) {
	for place, s := range shelves(t) {
		config := s.blob(t, v1.MediaTypeImageConfig, `{"os":1}`)
		s.put(t, v1.MediaTypeImageManifest, imageOf(v1.MediaTypeImageManifest, config), "v1")
		_, err := s.images.Inspect(t.Context(), s.name+":v1", nil)
		wantErr(t, place, err, berth.ErrManifestInvalid)
	}
}

// schema1File writes a manifest of schema 1, whatever rules it breaks. The layers come topmost first.
func schema1File(blobs int, history ...string) []byte {
	var layers, entries []map[string]string
	for range blobs {
		layers = append(layers, map[string]string{"blobSum": string(digest.FromString("layer"))})
	}
	for _, entry := range history {
		entries = append(entries, map[string]string{"v1Compatibility": entry})
	}
	return encoded(map[string]any{"schemaVersion": 1, "name": "app/hello", "tag": "v1", "architecture": "amd64",
		"fsLayers": layers, "history": entries})
}

func TestInspectKeepsTheRulesOfSchema1(t *testing.T) {
	windows := v1JSON(1, `,"os":"windows","rootfs":{"type":"layers+base","base_layer":"windowsservercore"}`)
	for what, c := range map[string]struct {
		raw    []byte
		layers int // 0: it is refused
		says   string
	}{
		"two layers":                    {schema1File(2, v1JSON(1, ""), v1JSON(0, "")), 2, ""},
		"a repeat that follows":         {schema1File(3, v1JSON(1, ""), v1JSON(0, ""), v1JSON(0, "")), 2, ""},
		"a layer that changes no file":  {schema1File(2, v1JSON(1, `,"throwaway":true`), v1JSON(0, "")), 1, ""},
		"a Windows base":                {schema1File(1, windows), 1, ""},
		"more fsLayers than history":    {schema1File(2, v1JSON(0, "")), 0, "history"},
		"more history than fsLayers":    {schema1File(1, v1JSON(1, ""), v1JSON(0, "")), 0, "history"},
		"nothing":                       {schema1File(0), 0, "layers"},
		"an id that is none":            {schema1File(1, `{"id":"one"}`), 0, "id"},
		"an id that comes again":        {schema1File(3, v1JSON(0, `,"parent":"`+v1ID(1)+`"`), v1JSON(1, ""), v1JSON(0, "")), 0, v1ID(0) + " is found twice"},
		"a parent that is not below":    {schema1File(2, v1JSON(2, ""), v1JSON(0, "")), 0, "has the parent"},
		"a base with a parent":          {schema1File(1, v1JSON(1, "")), 0, "has the parent"},
		"a description that is no JSON": {schema1File(1, "{"), 0, "v1Compatibility"},
	} {
		d := digest.FromBytes(c.raw)
		s := remoteShelf(t, madeUp(t, map[string]page{
			"manifests/v1":           pageOf(schema1.MediaType, c.raw),
			"manifests/" + string(d): pageOf("application/json", c.raw),
		}))
		for _, ref := range []string{":v1", "@" + string(d)} {
			r, err := s.images.Inspect(t.Context(), s.name+ref, nil)
			switch {
			case c.layers > 0 && (err != nil || len(r.Layers) != c.layers || r.Digest != d):
				t.Errorf("%s, %s: got %+v, %v", what, ref, r, err)
			case c.layers == 0 && (!errors.Is(err, berth.ErrManifestInvalid) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n")):
				t.Errorf("%s, %s: %v does not say %q in a line", what, ref, err, c.says)
			}
		}
	}
}

// Who gets no answer may try another registry; who was refused, or told nonsense, need not.
func TestInspectTellsErrorsApart(t *testing.T) {
	image := imageOf(v1.MediaTypeImageManifest, describeAs(v1.MediaTypeImageConfig, "{}"))
	for what, c := range map[string]struct {
		answer page
		want   error
		status int // of a refusal; 0: it is none
	}{
		"no login":            {page{status: http.StatusUnauthorized}, berth.ErrUnauthorized, http.StatusUnauthorized},
		"no right":            {page{status: http.StatusForbidden}, berth.ErrDenied, http.StatusForbidden},
		"too many":            {page{status: http.StatusTooManyRequests}, berth.ErrTooManyRequests, http.StatusTooManyRequests},
		"a server that fails": {page{status: http.StatusInternalServerError}, nil, http.StatusInternalServerError},
		"a web page":          {page{mediaType: "text/html", body: "<html>"}, berth.ErrManifestInvalid, 0},
		"half a manifest":     {page{mediaType: v1.MediaTypeImageManifest, body: string(image[:20])}, berth.ErrManifestInvalid, 0},
	} {
		s := remoteShelf(t, madeUp(t, map[string]page{"manifests/v1": c.answer}))
		_, err := s.images.Inspect(t.Context(), s.name+":v1", nil)
		var refused *remote.Error
		if errors.As(err, &refused) != (c.status != 0) || (refused != nil && refused.Status != c.status) {
			t.Errorf("%s: got %v", what, err)
		}
		if c.want != nil {
			wantErr(t, what, err, c.want)
		}
	}
	s := remoteShelf(t, "127.0.0.1:1")
	_, err := s.images.Inspect(t.Context(), s.name+":v1", nil)
	if err == nil || berth.Code(err) != "" || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("nobody there: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.images.Inspect(ctx, s.name+":v1", nil)
	wantErr(t, "a context that ended", err, context.Canceled)
}

func TestInspectGoesWithoutTagsThatItMayNotList(t *testing.T) {
	config := describeAs(v1.MediaTypeImageConfig, configOf("amd64"))
	image := pageOf(v1.MediaTypeImageManifest, imageOf(v1.MediaTypeImageManifest, config))
	for status, want := range map[int]bool{http.StatusUnauthorized: true, http.StatusForbidden: true, http.StatusNotFound: true,
		http.StatusMethodNotAllowed: true, http.StatusInternalServerError: false} {
		s := remoteShelf(t, madeUp(t, map[string]page{
			"manifests/v1":                   image,
			"blobs/" + string(config.Digest): {body: configOf("amd64")},
			"tags/list":                      {status: status},
		}))
		r, err := s.images.Inspect(t.Context(), s.name+":v1", nil)
		if (err == nil) != want || (want && (len(r.RepoTags) != 0 || r.Author != "Ada")) {
			t.Errorf("status %d: got %+v, %v", status, r, err)
		}
		if _, err = s.images.Inspect(t.Context(), s.name, nil); err == nil {
			t.Errorf("status %d: a tag was found that nobody listed", status)
		}
	}
}

func TestInspectReportsTheFirstOfManyTags(t *testing.T) {
	tags := []string{"not a tag", "v1"}
	for n := range 2 * sdk.MaxReportedTags {
		tags = append(tags, fmt.Sprintf("v1.%04d", n))
	}
	image := pageOf(v1.MediaTypeImageIndex, indexOf(v1.MediaTypeImageIndex))
	list := page{body: string(encoded(map[string]any{"tags": tags}))}
	pages := map[string]page{"manifests/v1": image, "tags/list": list}
	s := remoteShelf(t, madeUp(t, pages))
	r, err := s.images.Inspect(t.Context(), s.name, nil)
	must(t, err)
	if r.Tag != "v1" {
		t.Errorf("the first is %q", r.Tag)
	}
	wantEqual(t, "tags", r.RepoTags, tags[1:sdk.MaxReportedTags])
	pages["manifests/latest"] = pageOf(v1.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"manifests":[],"annotations":{"a":"b"}}`))
	r, err = s.images.Inspect(t.Context(), s.name, nil)
	if err != nil || r.Tag != "latest" {
		t.Errorf("latest is not among the first, and was not found: %+v, %v", r, err)
	}
}

func TestInspectOfADamagedLayoutSaysWhatLooksForDamage(t *testing.T) {
	dir := t.TempDir()
	registry := open(t, sdk.Options{Layout: dir})
	repo, err := registry.Repository("app/hello")
	must(t, err)
	s := shelf{registry.Images, repo, "app/hello"}
	s.image(t, v1.MediaTypeImageManifest, "amd64", "v1")
	config := filepath.Join(dir, "blobs", "sha256", digest.FromString(configOf("amd64")).Encoded())
	must(t, os.Chmod(config, 0o644))
	must(t, os.WriteFile(config, []byte(strings.Replace(configOf("amd64"), "Ada", "Eve", 1)), 0o644))
	_, err = s.images.Inspect(t.Context(), "app/hello:v1", nil)
	wantErr(t, "a damaged config", err, berth.ErrDigestInvalid)
	if err == nil || !strings.Contains(err.Error(), "berth fsck") || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("got %v", err)
	}
}

func TestInspectRefusesWhatIsNoReference(t *testing.T) {
	registry := open(t, sdk.Options{})
	for ref, want := range map[string]error{
		"App":           berth.ErrNameInvalid,
		"":              berth.ErrNameInvalid,
		"app:":          berth.ErrTagInvalid,
		"app@sha256:1":  berth.ErrDigestInvalid,
		"127.0.0.1:1/A": berth.ErrNameInvalid,
	} {
		_, err := registry.Inspect(t.Context(), ref, nil)
		wantErr(t, ref, err, want)
		_, err = registry.Manifest(t.Context(), ref, nil)
		wantErr(t, ref, err, want)
		_, err = registry.Config(t.Context(), ref, nil)
		wantErr(t, ref, err, want)
	}
	_, err := sdk.NewImages(nil).Inspect(t.Context(), "app:v1", nil)
	wantErr(t, "no layout", err, berth.ErrUnsupported)
}

func describeAs(mediaType, content string) v1.Descriptor {
	return manifest.Descriptor(mediaType, []byte(content))
}
