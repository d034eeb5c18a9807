package remote_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/hostile"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/remote/auth"
)

// The tests of this file are the cases of docs/remotes.md, by their numbers, that are decided here. Those of
// challenges, tokens and credentials are in package auth.

const (
	canary       = "canary.password"
	registryHost = "registry.example"
)

// stage is a hostile registry at https://registry.example, which may want tokens, a storage at
// https://cdn.example, and a client that has ada's password for whoever asks.
type stage struct {
	*hostile.Registry
	tokens  *hostile.TokenServer
	storage *hostile.Storage
	network *hostile.Network
}

func newStage(t *testing.T, opts hostile.Options) *stage {
	s := &stage{Registry: hostile.NewRegistry(&opts), tokens: opts.Tokens, network: hostile.NewNetwork()}
	s.storage = hostile.NewStorage(s.Registry)
	s.network.Handle("https://"+registryHost, s.Registry)
	s.network.Handle("https://cdn.example", s.storage)
	t.Cleanup(func() { s.Close(); s.network.Close() })
	return s
}

func (s *stage) open(t *testing.T, name string) *remote.Repository {
	t.Helper()
	repo, err := s.client(t, registryHost).Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// openWith is open with other options. The password is ada's.
func (s *stage) openWith(t *testing.T, opts *remote.Options) *remote.Repository {
	t.Helper()
	opts.Credentials = ada
	return repository(t, registryHost, opts)
}

func ada(context.Context, string) (auth.Credential, error) {
	return auth.Credential{Username: "ada", Password: canary}, nil
}

func (s *stage) client(t *testing.T, host string) *remote.Registry {
	t.Helper()
	registry, err := remote.New(host, &remote.Options{Credentials: ada, Transport: s.network})
	if err != nil {
		t.Fatal(err)
	}
	return registry
}

func adasTokens() *hostile.TokenServer {
	return hostile.NewTokenServer(&hostile.TokenOptions{Users: map[string]string{"ada": canary}})
}

func pushBlob(t *testing.T, repo *remote.Repository, content string) (digest.Digest, error) {
	t.Helper()
	desc := v1.Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
	return desc.Digest, repo.PushBlob(t.Context(), desc, func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content)), nil
	}, nil)
}

// wantNoAuthorization fails where one of the requests had any.
func wantNoAuthorization(t *testing.T, requests []hostile.Request) {
	t.Helper()
	if len(requests) == 0 {
		t.Error("nothing was asked")
	}
	for _, r := range requests {
		if r.Authorization() != "" || strings.Contains(fmt.Sprint(r.Header), canary) {
			t.Errorf("%s had %q", r, r.Authorization())
		}
	}
}

func TestCase08MountsAndTheirToken(t *testing.T) {
	for _, status := range []int{0, 401, 403, 404, 405} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := newStage(t, hostile.Options{Tokens: adasTokens(), RefuseMounts: status})
			d := s.PutBlob("source", []byte("layer"))
			up, err := s.open(t, "target").NewUpload(t.Context(), &berth.UploadOptions{Mount: d, From: "source"})
			switch {
			case status == 0 && (!errors.Is(err, berth.ErrMounted) || s.Blob("target", d) == nil):
				t.Errorf("mounting: %v", err)
			case status != 0 && err != nil:
				t.Errorf("no upload in place of the mount: %v", err)
			case status != 0:
				if _, err := up.Write([]byte("layer")); err != nil {
					t.Error(err)
				}
				if _, err := up.Commit(t.Context(), d); err != nil || s.Blob("target", d) == nil {
					t.Error(err)
				}
			}
			if got, want := s.tokens.Exchanges()[0].Scopes, []string{"repository:target:pull,push", "repository:source:pull"}; !slices.Equal(got, want) {
				t.Errorf("a token for %q, want %q", got, want)
			}
		})
	}
}

func TestCase09DeletingNeedsItsOwnAction(t *testing.T) {
	// The challenge does not say what for.
	s := newStage(t, hostile.Options{Tokens: adasTokens(), DeleteAction: true, Challenges: []string{`Bearer realm="/token"`}})
	blob := s.PutBlob("x", []byte("layer"))
	m := s.PutManifest("x", "v1", v1.MediaTypeImageIndex, []byte(emptyIndex))
	repo := s.open(t, "x")
	for what, err := range map[string]error{
		"a tag":      repo.Untag(t.Context(), "v1", nil),
		"a manifest": repo.DeleteManifest(t.Context(), m),
		"a blob":     repo.DeleteBlob(t.Context(), blob),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if s.Manifest("x", string(m)) != nil || s.Blob("x", blob) != nil {
		t.Error("it is still there")
	}
}

func TestCase09HeadOfAManifestThatIsNotTaken(t *testing.T) {
	for name, opts := range map[string]hostile.Options{
		"405 for all":        {HeadManifest: 405},
		"403 for all":        {HeadManifest: 403},
		"403 for the absent": {HeadAbsent: 403},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, opts)
			want := s.PutManifest("x", "v1", v1.MediaTypeImageIndex, []byte(emptyIndex))
			repo := s.open(t, "x")
			if desc, err := repo.Resolve(t.Context(), "v1"); err != nil || desc.Digest != want || desc.Size != int64(len(emptyIndex)) {
				t.Errorf("got %+v, %v", desc, err)
			}
			if _, err := repo.Resolve(t.Context(), "absent"); !errors.Is(err, berth.ErrManifestUnknown) {
				t.Errorf("what is absent: %v", err)
			}
		})
	}
}

func TestCase12ABlobOnAnotherHost(t *testing.T) {
	for name, challenge := range map[string]string{
		"which asks for nothing": "", "which wants a password": `Basic realm="give"`,
		"which names a realm": `Bearer realm="https://cdn.example/token"`, "which names the registry's": `Bearer realm="https://registry.example/token",service="hostile"`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, hostile.Options{Tokens: adasTokens(), BlobsAt: "https://cdn.example"})
			s.storage.Challenge = challenge
			blob, err := s.open(t, "x").OpenBlob(t.Context(), s.PutBlob("x", []byte("layer")))
			switch {
			case challenge != "" && !errors.Is(err, berth.ErrUnauthorized):
				t.Errorf("error is %v", err)
			case challenge == "" && err != nil:
				t.Error(err)
			case challenge == "":
				defer blob.Close()
				if got, err := io.ReadAll(blob); string(got) != "layer" {
					t.Errorf("read %q, %v", got, err)
				}
			}
			wantNoAuthorization(t, s.storage.Requests())
			if n := len(s.tokens.Exchanges()); n != 1 {
				t.Errorf("%d exchanges", n)
			}
		})
	}
	t.Run("of the same name, without TLS", func(t *testing.T) {
		s := newStage(t, hostile.Options{Tokens: adasTokens(), BlobsAt: "http://" + registryHost})
		s.network.Handle("http://"+registryHost, s.storage)
		blob, err := s.open(t, "x").OpenBlob(t.Context(), s.PutBlob("x", []byte("layer")))
		if err == nil {
			blob.Close()
		}
		wantNoAuthorization(t, s.storage.Requests())
	})
}

func TestCase13WhereAnUploadGoesOn(t *testing.T) {
	for name, opts := range map[string]hostile.Options{
		"a path":                      {},
		"an address":                  {Absolute: true},
		"with a query":                {UploadQuery: "sig=a%2Fb%2Bc"},
		"an address with a query":     {Absolute: true, UploadQuery: "sig=a%2Fb"},
		"another host":                {UploadsAt: "https://cdn.example"},
		"another host with a query":   {UploadsAt: "https://cdn.example", UploadQuery: "X-Amz-Signature=0a1b"},
		"a query that is signed":      {UploadQuery: "x=%7E&b=1&a=2"},
		"the same host, another port": {UploadsAt: "https://" + registryHost + ":8443"},
	} {
		t.Run(name, func(t *testing.T) {
			opts.Tokens = adasTokens()
			s := newStage(t, opts)
			s.network.Handle("https://"+registryHost+":8443", s.storage)
			repo := s.open(t, "x")
			if d, err := pushBlob(t, repo, "in one go"); err != nil || s.Blob("x", d) == nil {
				t.Errorf("in one go: %v", err)
			}
			up, err := repo.NewUpload(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, chunk := range []string{"in two ", "chunks"} {
				if _, err := up.Write([]byte(chunk)); err != nil {
					t.Fatal(err)
				}
			}
			if desc, err := up.Commit(t.Context(), digest.FromString("in two chunks")); err != nil || s.Blob("x", desc.Digest) == nil {
				t.Errorf("in two chunks: %v", err)
			}
			if opts.UploadsAt != "" {
				wantNoAuthorization(t, s.storage.Requests())
			}
		})
	}
}

func TestCase13AnUploadElsewhereThatWantsCredentials(t *testing.T) {
	for _, elsewhere := range []string{"https://cdn.example", "https://" + registryHost + ":8443"} {
		for _, challenge := range []string{`Basic realm="give"`, `Bearer realm="https://registry.example/token",service="hostile"`} {
			t.Run(elsewhere+" "+challenge[:5], func(t *testing.T) {
				s := newStage(t, hostile.Options{Tokens: adasTokens(), UploadsAt: elsewhere})
				s.storage.Challenge = challenge
				s.network.Handle("https://"+registryHost+":8443", s.storage)
				if _, err := pushBlob(t, s.open(t, "x"), "layer"); !errors.Is(err, berth.ErrUnauthorized) || strings.Contains(err.Error(), canary) {
					t.Errorf("error is %v", err)
				}
				wantNoAuthorization(t, s.storage.Requests())
			})
		}
	}
}

// A registry behind a proxy that ends TLS may not know of it, and name addresses of its own without TLS.
func TestCase13AnAddressThatLacksTLS(t *testing.T) {
	var uploaded string
	repo := repository(t, "registry.example", &remote.Options{Transport: fake(func(req *http.Request) (*http.Response, error) {
		if req.Method == http.MethodPost {
			return reply(http.StatusAccepted, "Location", "http://registry.example/v2/x/blobs/uploads/1?state=a"), nil
		}
		uploaded = req.URL.String()
		return reply(http.StatusCreated), nil
	})})
	d, err := pushBlob(t, repo, "layer")
	want := "https://registry.example/v2/x/blobs/uploads/1?state=a&digest=" + url.QueryEscape(string(d))
	if err != nil || uploaded != want {
		t.Errorf("it went to %s, %v, want %s", uploaded, err, want)
	}
}

func TestCase14TheNextPageElsewhere(t *testing.T) {
	subject := digest.FromString("subject")
	for _, elsewhere := range []string{"https://cdn.example", "http://" + registryHost, "https://" + registryHost + ":8443", "//cdn.example"} {
		t.Run(elsewhere, func(t *testing.T) {
			s := newStage(t, hostile.Options{Tokens: adasTokens(), PageSize: 1, NextPageAt: elsewhere})
			s.network.Handle("http://"+registryHost, s.storage)
			s.network.Handle("https://"+registryHost+":8443", s.storage)
			for _, tag := range []string{"v1", "v2"} {
				s.PutManifest("x", tag, v1.MediaTypeImageIndex, []byte(emptyIndex))
				s.PutManifest("y", tag, v1.MediaTypeImageIndex, fmt.Appendf(nil, `{"subject":{"digest":%q}}`, subject))
			}
			registry := s.client(t, registryHost)
			lists := map[string]error{}
			for _, err := range s.open(t, "x").Tags(t.Context(), "") {
				lists["tags"] = err
			}
			for _, err := range registry.Repositories(t.Context(), "") {
				lists["repositories"] = err
			}
			for what, err := range lists {
				if !errors.Is(err, berth.ErrDenied) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if n := len(s.storage.Requests()); n != 0 || len(lists) != 2 {
				t.Errorf("the other host was asked %d times", n)
			}
		})
	}
}

func TestCase19DockerHubsThreeNames(t *testing.T) {
	for _, host := range []string{"docker.io", "index.docker.io", "registry-1.docker.io"} {
		t.Run(host, func(t *testing.T) {
			s := newStage(t, hostile.Options{Tokens: hostile.NewTokenServer(&hostile.TokenOptions{Users: map[string]string{"ada": canary}, Private: true})})
			s.network.Handle("https://registry-1.docker.io", s)
			want := s.PutManifest("library/alpine", "v1", v1.MediaTypeImageIndex, []byte(emptyIndex))
			s.PutManifest("team/app", "v1", v1.MediaTypeImageIndex, []byte(emptyIndex))
			withoutStores(t)
			t.Setenv("DOCKER_AUTH_CONFIG", dockerAuths("https://index.docker.io/v1/", "ada:"+canary))
			registry, err := remote.New(host, &remote.Options{Credentials: auth.Docker(), Transport: s.network})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"alpine", "library/alpine", "team/app"} {
				repo, err := registry.Repository(name)
				if err != nil {
					t.Fatal(err)
				}
				if desc, err := repo.Resolve(t.Context(), "v1"); err != nil || desc.Digest != want {
					t.Errorf("%s: got %s, %v", name, desc.Digest, err)
				}
			}
		})
	}
}

func TestCase19TheMostSpecificCredential(t *testing.T) {
	passwords := map[string]string{"host": canary, "team": canary, "app": canary}
	s := newStage(t, hostile.Options{Tokens: hostile.NewTokenServer(&hostile.TokenOptions{Users: passwords, Private: true})})
	withoutStores(t)
	t.Setenv("DOCKER_AUTH_CONFIG", dockerAuths(registryHost, "host:"+canary, registryHost+"/team", "team:"+canary, registryHost+"/team/app", "app:"+canary))
	registry, err := remote.New(registryHost, &remote.Options{Credentials: auth.Docker(), Transport: s.network})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"team/app": "app", "team/app/web": "app", "team/other": "team", "teams/app": "host", "x": "host"} {
		s.PutManifest(name, "v1", v1.MediaTypeImageIndex, []byte(emptyIndex))
		repo, err := registry.Repository(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := repo.Resolve(t.Context(), "v1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if asked := s.tokens.Exchanges(); asked[len(asked)-1].Username != want {
			t.Errorf("%s is asked for as %s, want %s", name, asked[len(asked)-1].Username, want)
		}
	}
}

// withoutStores hides what is stored on this machine.
func withoutStores(t *testing.T) {
	t.Helper()
	empty := t.TempDir()
	for _, name := range []string{"HOME", "USERPROFILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"} {
		t.Setenv(name, empty)
	}
	t.Setenv("REGISTRY_AUTH_FILE", "")
}

// dockerAuths is a config with user:password under each key.
func dockerAuths(kv ...string) string {
	var b bytes.Buffer
	for i := 0; i < len(kv); i += 2 {
		fmt.Fprintf(&b, `,%q:{"auth":%q}`, kv[i], base64.StdEncoding.EncodeToString([]byte(kv[i+1])))
	}
	return `{"auths":{` + strings.TrimPrefix(b.String(), ",") + `}}`
}

// wire is a transport that sends nothing, and keeps where it would have been sent.
type wire struct{ last string }

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	w.last = req.URL.Scheme + "://" + req.URL.Host
	return nil, errors.New("not sent")
}

func TestCase20PlainHTTPIsForThisMachine(t *testing.T) {
	tests := []struct {
		host  string
		plain bool
		want  string
	}{
		{"localhost:5000", false, "http://localhost:5000"},
		{"LOCALHOST", false, "http://LOCALHOST"},
		{"registry.localhost", false, "http://registry.localhost"},
		{"127.0.0.1:5000", false, "http://127.0.0.1:5000"},
		{"127.9.9.9", false, "http://127.9.9.9"},
		{"[::1]:5000", false, "http://[::1]:5000"},
		{"https://localhost:5000", false, "https://localhost:5000"},
		{"127.0.0.1.evil.com", false, "https://127.0.0.1.evil.com"},
		{"localhost.evil.com:5000", false, "https://localhost.evil.com:5000"},
		{"mylocalhost", false, "https://mylocalhost"},
		{"10.0.0.1:5000", false, "https://10.0.0.1:5000"},
		{"192.168.1.1", false, "https://192.168.1.1"},
		{"[fd00::1]:5000", false, "https://[fd00::1]:5000"},
		{"registry.example:5000", false, "https://registry.example:5000"},
		{"registry.example:5000", true, "http://registry.example:5000"},
		{"https://registry.example", true, "https://registry.example"},
		{"http://127.0.0.1.evil.com", false, ""},
		{"http://10.0.0.1:5000", false, ""},
		{"http://10.0.0.1:5000", true, "http://10.0.0.1:5000"},
	}
	for _, tt := range tests {
		w := &wire{}
		registry, err := remote.New(tt.host, &remote.Options{Transport: w, PlainHTTP: tt.plain})
		if err == nil {
			err = registry.Ping(t.Context())
		}
		if w.last != tt.want || err == nil || tt.want == "" && !errors.Is(err, berth.ErrUnsupported) {
			t.Errorf("%s, plain %v: sent to %q, want %q; %v", tt.host, tt.plain, w.last, tt.want, err)
		}
	}
}
