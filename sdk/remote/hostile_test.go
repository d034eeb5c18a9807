package remote_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/remote/auth"
	"github.com/berthoci/berth/server"
)

const emptyIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

var emptyDigest = digest.FromString(emptyIndex)

// against returns the repository "x" of a registry that answers as the handler does.
func against(t *testing.T, handler http.HandlerFunc) *remote.Repository {
	t.Helper()
	return openX(t, registryOf(t, handler))
}

// registryOf returns the registry that answers as the handler does.
func registryOf(t *testing.T, handler http.HandlerFunc) *remote.Registry {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	registry, err := remote.New(srv.Listener.Addr().String(), &remote.Options{Patience: -1})
	if err != nil {
		t.Fatal(err)
	}
	return registry
}

func repository(t *testing.T, host string, opts *remote.Options) *remote.Repository {
	t.Helper()
	registry, err := remote.New(host, opts)
	if err != nil {
		t.Fatal(err)
	}
	return openX(t, registry)
}

func openX(t *testing.T, registry *remote.Registry) *remote.Repository {
	t.Helper()
	repo, err := registry.Open("x")
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func answer(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func TestHosts(t *testing.T) {
	for host, want := range map[string]error{
		"registry.example.com":         nil,
		"registry.example.com:5000":    nil,
		"https://registry.example.com": nil,
		"localhost:5000":               nil,
		"http://127.0.0.1:5000":        nil,
		"http://registry.example.com":  berth.ErrUnsupported,
		"http://10.0.0.1":              berth.ErrUnsupported,
		"http://127.0.0.1.evil.com":    berth.ErrUnsupported,
		"ftp://registry.example.com":   berth.ErrNameInvalid,
		"":                             berth.ErrNameInvalid,
		"a b":                          berth.ErrNameInvalid,
		"registry.example.com/team":    berth.ErrNameInvalid,
		"user@registry.example.com":    berth.ErrNameInvalid,
		"registry.example.com?x":       berth.ErrNameInvalid,
		":5000":                        berth.ErrNameInvalid,
	} {
		if _, err := remote.New(host, nil); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", host, err, want)
		}
	}
	if _, err := remote.New("http://10.0.0.1", &remote.Options{PlainHTTP: true}); err != nil {
		t.Errorf("with PlainHTTP: %v", err)
	}
}

// A manifest is believed only if it is what was asked for.
func TestManifestsThatLie(t *testing.T) {
	other := `{"schemaVersion":2,"manifests":[],"annotations":{"a":"b"}}`
	for name, tt := range map[string]struct {
		ref     string
		handler http.HandlerFunc
		want    error
	}{
		"other bytes under a digest":   {string(emptyDigest), answer(200, other, "Content-Type", v1.MediaTypeImageIndex), berth.ErrDigestInvalid},
		"other bytes than it tells":    {"v1", answer(200, other, "Content-Type", v1.MediaTypeImageIndex, "Docker-Content-Digest", string(emptyDigest)), berth.ErrDigestInvalid},
		"a web page under a digest":    {string(emptyDigest), answer(200, "<html>", "Content-Type", "text/html"), berth.ErrDigestInvalid},
		"no manifest, as it is told":   {"v1", answer(200, "{}", "Content-Type", v1.MediaTypeImageManifest, "Docker-Content-Digest", string(digest.FromString("{}"))), berth.ErrManifestInvalid},
		"a web page":                   {"v1", answer(200, "<html>", "Content-Type", "text/html"), berth.ErrManifestInvalid},
		"an image that says it is not": {"v1", answer(200, emptyIndex, "Content-Type", v1.MediaTypeImageManifest), berth.ErrManifestInvalid},
		"more than that, by digest":    {string(emptyDigest), answer(200, strings.Repeat(" ", berth.MaxManifestSize+10), "Content-Type", v1.MediaTypeImageIndex), berth.ErrSizeInvalid},
		"more than a manifest may be":  {"v1", answer(200, strings.Repeat(" ", berth.MaxManifestSize+10), "Content-Type", v1.MediaTypeImageIndex), berth.ErrSizeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := against(t, tt.handler).FetchManifest(t.Context(), tt.ref, nil); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestManifestsOfServersThatTellLittle(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"no digest header":       answer(200, emptyIndex, "Content-Type", v1.MediaTypeImageIndex),
		"no useful content type": answer(200, emptyIndex, "Content-Type", "text/plain"),
		"parameters":             answer(200, emptyIndex, "Content-Type", v1.MediaTypeImageIndex+"; charset=utf-8"),
		"upper case digest":      answer(200, emptyIndex, "Content-Type", v1.MediaTypeImageIndex, "Docker-Content-Digest", strings.ToUpper(string(emptyDigest))),
		"no HEAD": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			io.WriteString(w, emptyIndex)
		},
	} {
		t.Run(name, func(t *testing.T) {
			repo := against(t, handler)
			want := manifest.Descriptor(v1.MediaTypeImageIndex, []byte(emptyIndex))
			if got, err := repo.Resolve(t.Context(), "v1"); err != nil || got.Digest != want.Digest || got.Size != want.Size || got.MediaType != want.MediaType {
				t.Errorf("resolve: got %+v, %v", got, err)
			}
			if m, err := repo.FetchManifest(t.Context(), "v1", nil); err != nil || string(m.Raw) != emptyIndex {
				t.Errorf("fetch: got %q, %v", m.Raw, err)
			}
		})
	}
}

func TestResolveOfAnotherDigest(t *testing.T) {
	other := string(digest.FromString("other"))
	repo := against(t, answer(200, "", "Content-Type", v1.MediaTypeImageIndex, "Content-Length", "5", "Docker-Content-Digest", other))
	if _, err := repo.Resolve(t.Context(), string(emptyDigest)); !errors.Is(err, berth.ErrDigestInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestBlobsThatLie(t *testing.T) {
	d := digest.FromString("content")
	for name, tt := range map[string]struct {
		handler http.HandlerFunc
		want    error
	}{
		"other bytes": {answer(200, "CONTENT"), berth.ErrDigestInvalid},
		"cut short":   {answer(200, "con", "Content-Length", "7"), io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			blob, err := against(t, tt.handler).OpenBlob(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			defer blob.Close()
			if _, err := io.ReadAll(blob); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// A server that does not know ranges sends all of it again; the reader does not notice.
func TestSeekWithoutRanges(t *testing.T) {
	repo := against(t, answer(200, "0123456789", "Content-Length", "10"))
	blob, err := repo.OpenBlob(t.Context(), digest.FromString("0123456789"))
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	if _, err := blob.Seek(7, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(blob); err != nil || string(got) != "789" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := blob.Seek(-1, io.SeekStart); err == nil {
		t.Error("sought before the start")
	}
}

func TestErrorsKeepWhatWasSaid(t *testing.T) {
	for name, tt := range map[string]struct {
		status int
		body   string
		want   error
		says   string
	}{
		"the specification's body": {404, `{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository","detail":{"name":"x"}}]}`, berth.ErrNameUnknown, "no such repository"},
		"a code of its own":        {404, `{"errors":[{"code":"NOT_FOUND","message":"artifact x not found"}]}`, berth.ErrManifestUnknown, "artifact x not found"},
		"plain text":               {429, "slow down\nplease", berth.ErrTooManyRequests, "slow down"},
		"a web page":               {403, "<html><h1>Forbidden</h1></html>", berth.ErrDenied, "status 403"},
		"nothing":                  {404, "", berth.ErrManifestUnknown, "status 404"},
		"two errors":               {400, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"a"},{"code":"TAG_INVALID","message":"b"}]}`, berth.ErrTagInvalid, "a; TAG_INVALID: b"},
		"terminal codes":           {500, "bad \x1b[31mred", nil, "bad  [31mred"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := against(t, answer(tt.status, tt.body)).FetchManifest(t.Context(), "v1", nil)
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			var refused *remote.Error
			if !errors.As(err, &refused) || refused.Status != tt.status || refused.Method != "GET" {
				t.Fatalf("got %#v", err)
			}
			if !strings.Contains(err.Error(), tt.says) || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("%q does not say %q in one line", err, tt.says)
			}
		})
	}
}

func TestAnErrorIsNotLong(t *testing.T) {
	_, err := against(t, answer(400, strings.Repeat("long ", 100_000))).FetchManifest(t.Context(), "v1", nil)
	if err == nil || len(err.Error()) > 1000 {
		t.Errorf("%d bytes", len(fmt.Sprint(err)))
	}
}

func TestListsAcrossPages(t *testing.T) {
	repo := against(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("last") {
		case "":
			w.Header().Set("Link", `</v2/x/tags/list?last=b&n=2>; rel="next"`)
			io.WriteString(w, `{"tags":["a","b"]}`)
		case "b":
			w.Header().Set("Link", `<?last=c>; rel=next`)
			io.WriteString(w, `{"tags":["c"]}`)
		default:
			io.WriteString(w, `{"tags":null}`)
		}
	})
	var tags []string
	for tag, err := range repo.Tags(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		tags = append(tags, tag)
	}
	if strings.Join(tags, "") != "abc" {
		t.Errorf("got %q", tags)
	}
}

// Where the endpoint is missing the referrers are read from the tag that stands in for it.
func TestReferrersFromTheFallbackTag(t *testing.T) {
	subject := digest.FromString("subject")
	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"digest":%q,"size":1,"artifactType":"a/x"},{"digest":%q,"size":1,"artifactType":"a/y"}]}`,
		v1.MediaTypeImageIndex, digest.FromString("one"), digest.FromString("two"))
	repo := against(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/x/manifests/sha256-"+subject.Encoded() {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", v1.MediaTypeImageIndex)
		io.WriteString(w, index)
	})
	count := func(s digest.Digest, opts *berth.ReferrersOptions) (n int) {
		for _, err := range repo.Referrers(t.Context(), s, opts) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	if n := count(subject, nil); n != 2 {
		t.Errorf("%d referrers, want 2", n)
	}
	if n := count(subject, &berth.ReferrersOptions{ArtifactType: "a/x"}); n != 1 {
		t.Errorf("%d referrers of one type, want 1", n)
	}
	if n := count(digest.FromString("lonely"), nil); n != 0 {
		t.Errorf("%d referrers of a lonely subject", n)
	}
}

// A body that was sent before the registry asked for credentials is sent again.
func TestPushBlobSendsItsBodyAgain(t *testing.T) {
	host := serve(t, &server.Options{Authorizer: server.Token(canary)})
	repo := repository(t, host, &remote.Options{Credentials: auth.Static(host, auth.Credential{Username: "x", Password: canary})})
	content := bytes.Repeat([]byte("content "), 100_000)
	desc := v1.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	for range 2 {
		err := repo.PushBlob(t.Context(), desc, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, err := repo.StatBlob(t.Context(), desc.Digest); err != nil || got.Size != desc.Size {
		t.Errorf("got %+v, %v", got, err)
	}
	short := v1.Descriptor{Digest: digest.FromString("short"), Size: 100}
	err := repo.PushBlob(t.Context(), short, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("short")), nil }, nil)
	if err == nil {
		t.Error("a body that is shorter than its descriptor went through")
	}
	empty := v1.Descriptor{Digest: digest.FromString(""), Size: 0}
	if err := repo.PushBlob(t.Context(), empty, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("")), nil }, nil); err != nil {
		t.Errorf("an empty blob: %v", err)
	}
}

func TestPing(t *testing.T) {
	host := serve(t, &server.Options{Authorizer: server.Token(canary)})
	for password, want := range map[string]error{canary: nil, canary + "-wrong": berth.ErrUnauthorized, "": berth.ErrUnauthorized} {
		registry, err := remote.New(host, &remote.Options{Credentials: auth.Static(host, auth.Credential{Username: "x", Password: password})})
		if err != nil {
			t.Fatal(err)
		}
		if err := registry.Ping(t.Context()); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", password, err, want)
		}
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	registry, err := remote.New(other.Listener.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := registry.Ping(t.Context()); !errors.Is(err, berth.ErrUnsupported) {
		t.Errorf("what is no registry: got %v", err)
	}
}

func TestTagsTheRegistryDoesNotTakeAlong(t *testing.T) {
	var put []string
	repo := against(t, func(w http.ResponseWriter, r *http.Request) {
		put = append(put, strings.TrimPrefix(r.URL.Path, "/v2/x/manifests/"))
		w.WriteHeader(http.StatusCreated) // no OCI-Tag: tag parameters are not known
	})
	if _, err := repo.PushManifest(t.Context(), []byte(emptyIndex), &berth.PushOptions{Tags: []string{"a", "b"}}); err != nil {
		t.Fatal(err)
	}
	if want := []string{string(emptyDigest), "a", "b"}; fmt.Sprint(put) != fmt.Sprint(want) {
		t.Errorf("sent %q, want %q", put, want)
	}
}

func TestARefusalSaysWhatToDo(t *testing.T) {
	for name, tt := range map[string]struct {
		challenge string
		shown     auth.Credential
		says      string
	}{
		"nothing stored":             {`Basic realm="x"`, auth.Credential{}, "no credentials are stored for HOST: docker login HOST"},
		"wrong password":             {`Basic realm="x"`, auth.Credential{Username: "alice", Password: canary}, "HOST refused user alice"},
		"a stored token":             {`Basic realm="x"`, auth.Credential{IdentityToken: canary}, "HOST refused the stored token"},
		"not allowed":                {`Bearer error="insufficient_scope"`, auth.Credential{Username: "alice", Password: canary}, "the login is good, but does not allow this"},
		"not allowed, nor logged in": {`Bearer error="insufficient_scope"`, auth.Credential{}, "no credentials are stored for HOST: docker login HOST"},
		"no challenge yet":           {"", auth.Credential{}, "docker login HOST"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(answer(401, "", "WWW-Authenticate", tt.challenge))
			defer srv.Close()
			host := srv.Listener.Addr().String()
			repo := repository(t, host, &remote.Options{Credentials: auth.Static(host, tt.shown)})
			_, err := repo.Resolve(t.Context(), "v1")
			if !errors.Is(err, berth.ErrUnauthorized) || !strings.Contains(err.Error(), strings.ReplaceAll(tt.says, "HOST", host)) {
				t.Errorf("got %v, want it to say %q", err, tt.says)
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("%q tells a secret", err)
			}
		})
	}
}
