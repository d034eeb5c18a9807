package sdk_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	gosync "sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/manifest/schema1"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/server"
)

// watched is a remote registry whose requests are written down. change may spoil them.
type watched struct {
	shelf
	mu       gosync.Mutex // guards the field below
	requests []string
}

func watch(tb testing.TB, change func(*http.Request)) *watched {
	tb.Helper()
	layout, err := ocilayout.Open(tb.Context(), tb.TempDir(), nil)
	must(tb, err)
	w := &watched{}
	handler := server.New(layout, nil)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.requests = append(w.requests, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v2/app/hello"))
		w.mu.Unlock()
		if change != nil {
			change(r)
		}
		handler.ServeHTTP(rw, r)
	}))
	tb.Cleanup(func() {
		srv.Close()
		must(tb, layout.Close())
	})
	w.shelf = remoteShelf(tb, srv.Listener.Addr().String())
	return w
}

// seen returns the requests since it was called last.
func (w *watched) seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.requests = nil }()
	return w.requests
}

// holds checks where each tag of a repository points.
func (s shelf) holds(tb testing.TB, what string, want map[string]digest.Digest) {
	tb.Helper()
	found := 0
	for tag, err := range s.repo.Tags(tb.Context(), "") {
		must(tb, err)
		found++
		desc, err := s.repo.Resolve(tb.Context(), tag)
		must(tb, err)
		if desc.Digest != want[tag] {
			tb.Errorf("%s: %s is %s, want %q", what, tag, desc.Digest, want[tag])
		}
	}
	if found != len(want) {
		tb.Errorf("%s: there are %d tags, want %d", what, found, len(want))
	}
}

func TestTagPutsTheSameBytesUnderNewNames(t *testing.T) {
	for place, s := range shelves(t) {
		spaced := append([]byte(" \n"), imageOf(v1.MediaTypeImageManifest, s.blob(t, v1.MediaTypeImageConfig, "{}"))...)
		want := s.put(t, v1.MediaTypeImageManifest, spaced, "latest")
		other := s.image(t, v1.MediaTypeImageManifest, "arm64", "moved")
		got, err := s.images.Tag(t.Context(), s.name, "v1")
		if err != nil || got.Digest != want.Digest || got.Size != want.Size || got.MediaType != want.MediaType {
			t.Errorf("%s: got %+v, %v", place, got, err)
		}
		_, err = s.images.Tag(t.Context(), s.name+"@"+string(want.Digest), "v2", "moved", "v2")
		must(t, err)
		_, err = s.images.Tag(t.Context(), s.name+":v1", "v1")
		must(t, err)
		s.holds(t, place, map[string]digest.Digest{"latest": want.Digest, "v1": want.Digest, "v2": want.Digest, "moved": want.Digest})
		m, err := s.repo.FetchManifest(t.Context(), "v2", nil)
		if err != nil || string(m.Raw) != string(spaced) {
			t.Errorf("%s: got %q, %v", place, m.Raw, err)
		}
		_, err = s.repo.Resolve(t.Context(), string(other.Digest))
		must(t, err) // what a tag has left stays
	}
}

func TestTagIsOnePutAndMovesNoBlob(t *testing.T) {
	w := watch(t, nil)
	list, _, _ := w.index(t, v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, "v1")
	w.seen()
	for what, c := range map[string]struct{ tags, requests []string }{
		"one tag":      {[]string{"v2"}, []string{"GET /manifests/v1", "PUT /manifests/v2"}},
		"several tags": {[]string{"v3", "v4", "v5"}, []string{"GET /manifests/v1", "PUT /manifests/" + string(list.Digest)}},
	} {
		_, err := w.images.Tag(t.Context(), w.name+":v1", c.tags...)
		must(t, err)
		wantEqual(t, what, w.seen(), c.requests)
	}
}

// There are registries that set no tags along with a digest.
func TestTagWhereTheRegistrySetsOneTagAtATime(t *testing.T) {
	w := watch(t, func(r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			r.URL.RawQuery = ""
		}
	})
	want := w.image(t, v1.MediaTypeImageManifest, "amd64", "v1")
	_, err := w.images.Tag(t.Context(), w.name+":v1", "v2", "v3")
	must(t, err)
	w.holds(t, "one at a time", map[string]digest.Digest{"v1": want.Digest, "v2": want.Digest, "v3": want.Digest})
}

func TestTagOfSchema1CannotBeAnother(t *testing.T) {
	for place, s := range shelves(t) {
		m := s.schema1(t, true, "v1")
		_, err := s.images.Tag(t.Context(), s.name+":v1", "v1")
		must(t, err)
		for _, tags := range [][]string{{"v2"}, {"v1", "v2"}} {
			_, err := s.images.Tag(t.Context(), s.name+":v1", tags...)
			wantErr(t, place, err, berth.ErrTagInvalid)
			if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), s.name+":v1") || !strings.Contains(err.Error(), `"v1", not "v2"`) {
				t.Errorf("%s: got %v", place, err)
			}
		}
		s.holds(t, place, map[string]digest.Digest{"v1": m.Digest()})
		if got, err := s.repo.FetchManifest(t.Context(), "v1", nil); err != nil || got.Descriptor.MediaType != schema1.MediaTypeSigned {
			t.Errorf("%s: got %+v, %v", place, got.Descriptor, err)
		}
	}
}

func TestTagErrorsChangeNothing(t *testing.T) {
	for place, s := range shelves(t) {
		want := s.image(t, v1.MediaTypeImageManifest, "amd64", "v1")
		for what, c := range map[string]struct {
			ref  string
			tags []string
			want error
			says string
		}{
			"no tag":              {":v1", nil, berth.ErrTagInvalid, "name one or more"},
			"an empty tag":        {":v1", []string{""}, berth.ErrTagInvalid, `""`},
			"one tag that is bad": {":v1", []string{"v2", "v 3"}, berth.ErrTagInvalid, `"v 3"`},
			"a reference":         {":v1", []string{"app/hello:v2"}, berth.ErrTagInvalid, `"app/hello:v2"`},
			"an absent tag":       {":v9", []string{"v2"}, berth.ErrManifestUnknown, ":v9"},
			"an absent digest":    {"@" + string(digest.FromString("x")), []string{"v2"}, berth.ErrManifestUnknown, "@sha256:"},
			"no reference":        {":v 1", []string{"v2"}, berth.ErrTagInvalid, `:v 1"`},
		} {
			_, err := s.images.Tag(t.Context(), s.name+c.ref, c.tags...)
			wantErr(t, place+", "+what, err, c.want)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %s: %v does not say %q", place, what, err, c.says)
			}
		}
		s.holds(t, place, map[string]digest.Digest{"v1": want.Digest})
	}
}

func TestTagWhereNothingMayBeChanged(t *testing.T) {
	layout, err := ocilayout.Open(t.Context(), t.TempDir(), nil)
	must(t, err)
	open := httptest.NewServer(server.New(layout, nil))
	closed := httptest.NewServer(server.New(layout, &server.Options{ReadOnly: true}))
	t.Cleanup(func() {
		open.Close()
		closed.Close()
		must(t, layout.Close())
	})
	remoteShelf(t, open.Listener.Addr().String()).image(t, v1.MediaTypeImageManifest, "amd64", "v1")
	s := remoteShelf(t, closed.Listener.Addr().String())
	_, err = s.images.Tag(t.Context(), s.name+":v1", "v2")
	wantErr(t, "Tag", err, berth.ErrUnsupported)
	removed, err := s.images.Remove(t.Context(), s.name+":v1")
	wantErr(t, "Remove", err, berth.ErrUnsupported)
	wantEqual(t, "removed", removed, nil)
}

func TestRemove(t *testing.T) {
	for _, c := range []struct {
		what string
		refs []string // D is the digest of v1 and v2, E that of v3
		left string   // tags
		gone string   // the digest that is not there any more
	}{
		{"a tag leaves the manifest", []string{":v1"}, "v2 v3", ""},
		{"the last tag leaves the manifest", []string{":v3"}, "v1 v2", ""},
		{"a digest takes its tags along", []string{"@D"}, "v3", "D"},
		{"a tag that points there", []string{":v1@D"}, "v2 v3", ""},
		{"several", []string{":v1", ":v3", "@D"}, "", "D"},
	} {
		for place, s := range shelves(t) {
			names := map[string]digest.Digest{
				"D": s.image(t, v1.MediaTypeImageManifest, "amd64", "v1", "v2").Digest,
				"E": s.image(t, v1.MediaTypeImageManifest, "arm64", "v3").Digest,
			}
			refs := expand(s.name, c.refs, names)
			removed, err := s.images.Remove(t.Context(), refs...)
			must(t, err)
			wantEqual(t, place+", "+c.what, removed, refs)
			want := map[string]digest.Digest{}
			for tag := range strings.FieldsSeq(c.left) {
				want[tag] = names[map[string]string{"v1": "D", "v2": "D", "v3": "E"}[tag]]
			}
			s.holds(t, place+", "+c.what, want)
			for name, d := range names {
				_, err := s.repo.Resolve(t.Context(), string(d))
				if (err != nil) != (name == c.gone) {
					t.Errorf("%s, %s: %s: %v", place, c.what, name, err)
				}
			}
		}
	}
}

// expand makes references of what a table has.
func expand(name string, refs []string, names map[string]digest.Digest) []string {
	var all []string
	for _, ref := range refs {
		before, digestName, found := strings.Cut(ref, "@")
		if found {
			before += "@" + string(names[digestName])
		}
		all = append(all, name+before)
	}
	return all
}

func TestRemoveOfATagThatPointsElsewhere(t *testing.T) {
	for place, s := range shelves(t) {
		one := s.image(t, v1.MediaTypeImageManifest, "amd64", "v1")
		two := s.image(t, v1.MediaTypeImageManifest, "arm64", "v2")
		removed, err := s.images.Remove(t.Context(), s.name+":v1@"+string(two.Digest))
		wantErr(t, place, err, berth.ErrPreconditionFailed)
		wantEqual(t, place, removed, nil)
		if err == nil || !strings.Contains(err.Error(), string(one.Digest)) || !strings.Contains(err.Error(), s.name+":v1@") {
			t.Errorf("%s: got %v", place, err)
		}
		s.holds(t, place, map[string]digest.Digest{"v1": one.Digest, "v2": two.Digest})
	}
}

// There are registries that know no conditions, and a tag that moves at the wrong moment.
func TestRemoveUnderAConditionIsSafe(t *testing.T) {
	deaf := watch(t, func(r *http.Request) { r.Header.Del("If-Match") })
	one := deaf.image(t, v1.MediaTypeImageManifest, "amd64", "v1")
	two := deaf.image(t, v1.MediaTypeImageManifest, "arm64", "v2")
	_, err := deaf.images.Remove(t.Context(), deaf.name+":v1@"+string(two.Digest))
	wantErr(t, "a registry without conditions", err, berth.ErrPreconditionFailed)
	deaf.holds(t, "a registry without conditions", map[string]digest.Digest{"v1": one.Digest, "v2": two.Digest})

	var racing *watched
	moved := false
	racing = watch(t, func(r *http.Request) {
		if r.Method == http.MethodDelete && !moved {
			moved = true
			racing.image(t, v1.MediaTypeImageManifest, "arm64", "v1")
		}
	})
	one = racing.image(t, v1.MediaTypeImageManifest, "amd64", "v1")
	_, err = racing.images.Remove(t.Context(), racing.name+":v1@"+string(one.Digest))
	wantErr(t, "a race", err, berth.ErrPreconditionFailed)
	racing.holds(t, "a race", map[string]digest.Digest{"v1": two.Digest})
}

func TestRemoveWhatCanBeRemoved(t *testing.T) {
	for place, s := range shelves(t) {
		absent := digest.FromString("absent")
		s.image(t, v1.MediaTypeImageManifest, "amd64", "v1", "v2")
		removed, err := s.images.Remove(t.Context(), s.name+":v9", s.name+":v1", s.name+"@"+string(absent), s.name+":v2")
		wantErr(t, place, err, berth.ErrManifestUnknown)
		wantEqual(t, place, removed, []string{s.name + ":v1", s.name + ":v2"})
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != 2 || !strings.HasPrefix(lines[0], s.name+":v9: ") || !strings.HasPrefix(lines[1], s.name+"@"+string(absent)+": ") {
			t.Errorf("%s: got %q", place, lines)
		}
	}
}

// A slip of the finger removes nothing, whatever stands beside it.
func TestRemoveReadsAllReferencesFirst(t *testing.T) {
	for place, s := range shelves(t) {
		want := s.image(t, v1.MediaTypeImageManifest, "amd64", "v1")
		for ref, c := range map[string]struct {
			want error
			says string
		}{
			s.name:               {berth.ErrTagInvalid, "name " + s.name + ":TAG or " + s.name + "@DIGEST"},
			s.name + ":":         {berth.ErrTagInvalid, `:"`},
			s.name + ":v 1":      {berth.ErrTagInvalid, `v 1"`},
			s.name + "@sha256:1": {berth.ErrDigestInvalid, `@sha256:1"`},
			"App:v1":             {berth.ErrNameInvalid, `"App:v1"`},
		} {
			removed, err := s.images.Remove(t.Context(), s.name+":v1", ref)
			wantErr(t, place+", "+ref, err, c.want)
			if removed != nil || err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %s: removed %q; %v does not say %q", place, ref, removed, err, c.says)
			}
		}
		s.holds(t, place, map[string]digest.Digest{"v1": want.Digest})
	}
}

// note pushes an artifact of a type that refers to a subject.
func (s shelf) note(tb testing.TB, artifactType string, subject v1.Descriptor) v1.Descriptor {
	tb.Helper()
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: s.blob(tb, v1.MediaTypeEmptyJSON, "{}"), Subject: &subject, Annotations: map[string]string{"type": artifactType}}
	m.SchemaVersion = 2
	return s.put(tb, m.MediaType, encoded(m))
}

func TestReferrers(t *testing.T) {
	for place, s := range shelves(t) {
		image := s.image(t, v1.MediaTypeImageManifest, "amd64", "latest", "v1")
		s.image(t, v1.MediaTypeImageManifest, "arm64", "alone")
		absent := manifest.Descriptor(v1.MediaTypeImageManifest, []byte("absent"))
		want := map[string]v1.Descriptor{
			"a":      s.note(t, "application/a", image),
			"b":      s.note(t, "application/b", image),
			"absent": s.note(t, "application/a", absent),
		}
		for _, c := range []struct{ ref, artifactType, want string }{
			{"", "", "a b"},
			{":v1", "", "a b"},
			{"@" + string(image.Digest), "", "a b"},
			{":v9@" + string(image.Digest), "application/b", "b"},
			{":v1", "application/a", "a"},
			{":v1", "application/c", ""},
			{":alone", "", ""},
			{"@" + string(absent.Digest), "", "absent"},
			{"@" + string(digest.FromString("nobody's")), "", ""},
		} {
			found := map[digest.Digest]v1.Descriptor{}
			last := digest.Digest("")
			for desc, err := range s.images.Referrers(t.Context(), s.name+c.ref, c.artifactType) {
				must(t, err)
				if desc.Digest <= last || desc.Annotations["type"] != desc.ArtifactType {
					t.Errorf("%s, %s: got %+v after %s", place, c.ref, desc, last)
				}
				found[desc.Digest], last = desc, desc.Digest
			}
			names := strings.Fields(c.want)
			for _, name := range names {
				if got := found[want[name].Digest]; got.Size != want[name].Size {
					t.Errorf("%s, %s: %s is missing", place, c.ref, name)
				}
			}
			if len(found) != len(names) {
				t.Errorf("%s, %s: got %d, want %q", place, c.ref, len(found), names)
			}
		}
		for range s.images.Referrers(t.Context(), s.name+":v1", "") {
			break // a caller may stop
		}
	}
}

func TestReferrersErrors(t *testing.T) {
	for place, s := range shelves(t) {
		s.image(t, v1.MediaTypeImageManifest, "amd64", "v1")
		for ref, want := range map[string]error{
			s.name + ":v9":             berth.ErrManifestUnknown,
			s.name:                     berth.ErrManifestUnknown,
			s.name + ":v 1":            berth.ErrTagInvalid,
			s.name + "@sha256:1":       berth.ErrDigestInvalid,
			s.name + "/App":            berth.ErrNameInvalid,
			"127.0.0.1:1/app/hello:v1": nil,
		} {
			seen := 0
			for desc, err := range s.images.Referrers(t.Context(), ref, "") {
				if seen++; err == nil || desc.Digest != "" || (want != nil && berth.Code(err) != berth.Code(want)) {
					t.Errorf("%s, %s: got %+v, %v", place, ref, desc, err)
				}
			}
			if seen != 1 {
				t.Errorf("%s, %s: got %d errors", place, ref, seen)
			}
		}
	}
}

// An address that the system chose for this session means nothing to the user.
func TestErrorsOfManagingTheLayoutDoNotShowItsAddress(t *testing.T) {
	layout := t.TempDir()
	registry := open(t, sdk.Options{Layout: layout})
	push(t, registry, "one", "app:v1")
	_, tagErr := registry.Tag(t.Context(), "app:v9", "v2")
	_, removeErr := registry.Remove(t.Context(), "app:v9")
	_, inspectErr := registry.Inspect(t.Context(), "app:v9", nil)
	var referrersErr error
	for _, referrersErr = range registry.Referrers(t.Context(), "app:v9", "") {
		break
	}
	for what, err := range map[string]error{"Tag": tagErr, "Remove": removeErr, "Inspect": inspectErr, "Referrers": referrersErr} {
		wantErr(t, what, err, berth.ErrManifestUnknown)
		if want := "app:v9: manifest unknown in the layout " + layout + "; berth ls shows what there is"; err == nil || err.Error() != want {
			t.Errorf("%s: got %v", what, err)
		}
	}
}
