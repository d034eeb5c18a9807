package auth

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/berthoci/berth/internal/hostile"
)

const (
	canary         = "canary.password"
	canaryIdentity = "canary.identity"
)

// stage is a hostile registry with its token server, a storage beside it, and a client of them.
type stage struct {
	network  *hostile.Network
	registry *hostile.Registry
	storage  *hostile.Storage
	tokens   *hostile.TokenServer
	rt       *Transport
}

// newStage puts a registry at https://registry.example, its tokens also at https://auth.example, and its
// storage at https://cdn.example. Nil tokens: the registry wants none.
func newStage(t *testing.T, opts hostile.Options, tokens *hostile.TokenOptions) *stage {
	s := &stage{network: hostile.NewNetwork(), tokens: hostile.NewTokenServer(tokens)}
	if tokens != nil {
		opts.Tokens = s.tokens
	}
	s.registry = hostile.NewRegistry(&opts)
	s.storage = hostile.NewStorage(s.registry)
	s.rt = &Transport{Base: s.network}
	s.network.Handle(registryURL, s.registry)
	s.network.Handle(realmURL, s.tokens)
	s.network.Handle("https://cdn.example", s.storage)
	for _, repo := range []string{"a", "b"} {
		s.registry.PutManifest(repo, "v1", "application/vnd.oci.image.index.v1+json", []byte(`{"schemaVersion":2}`))
	}
	t.Cleanup(func() { s.registry.Close(); s.network.Close() })
	return s
}

func (s *stage) as(c Credential) *stage {
	s.rt.Credentials = Static("registry.example", c)
	return s
}

const pathA = "/v2/a/manifests/v1"

// get asks for a manifest and returns the status and the body.
func (s *stage) get(t *testing.T, scopes ...Scope) (int, string) {
	t.Helper()
	return get(t, s.rt, registryURL+pathA, scopes...)
}

// send sends a request for the repository a.
func (s *stage) send(t *testing.T, method, path string, body io.Reader, actions ...string) (*http.Response, string) {
	t.Helper()
	resp, err := s.rt.RoundTrip(request(t, method, registryURL+path, body, Repository("a", actions...)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

// begin begins an upload and returns where it goes on.
func (s *stage) begin(t *testing.T) string {
	t.Helper()
	resp, _ := s.send(t, http.MethodPost, "/v2/a/blobs/uploads/", nil, "pull", "push")
	if resp.StatusCode != http.StatusAccepted {
		t.Fatalf("status %d", resp.StatusCode)
	}
	return resp.Header.Get("Location")
}

// schemes are those of the authorisations that were shown, "" for none.
func (s *stage) schemes() (schemes []string) {
	for _, r := range s.registry.Requests() {
		scheme, _, _ := strings.Cut(r.Authorization(), " ")
		schemes = append(schemes, scheme)
	}
	return schemes
}

func (s *stage) methods() (methods []string) {
	for _, x := range s.tokens.Exchanges() {
		methods = append(methods, x.Method)
	}
	return methods
}

var ada = Credential{Username: "ada", Password: canary}

func users() map[string]string { return map[string]string{"ada": canary} }
