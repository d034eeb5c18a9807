package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth/server"
)

// artifact is a manifest of an artifact type, whose config and layer are the empty blob.
func artifact(kind string) string {
	empty := fmt.Sprintf(`{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2}`, digest.FromString("{}"))
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":%s,"layers":[%s]}`, v1.MediaTypeImageManifest, kind, empty, empty)
}

// push pushes a manifest and what it needs.
func (f *fixture) push(repository, raw string, header ...string) *http.Response {
	f.Helper()
	d := digest.FromString("{}")
	f.want(f.do("POST", "/v2/"+repository+"/blobs/uploads/?digest="+string(d), "{}", header...), http.StatusCreated)
	return f.do("PUT", "/v2/"+repository+"/manifests/v1", raw, header...)
}

func TestThePolicyOfARegistry(t *testing.T) {
	for _, tt := range []struct {
		policy server.Policy
		raw    string
		status int
	}{
		{server.Policy{}, artifact("a/b"), 201},
		{server.Policy{Allow: []string{"a/b"}}, artifact("A/B"), 201},
		{server.Policy{Allow: []string{"a/b"}}, artifact("a/c"), 403},
		{server.Policy{Allow: []string{"a/b"}}, emptyIndex, 403},
		{server.Policy{Allow: []string{"application/vnd.oci.image.*"}}, emptyIndex, 201},
		{server.Policy{Deny: []string{"a/*"}}, artifact("a/b"), 403},
		{server.Policy{Deny: []string{"a/*"}}, emptyIndex, 201},
		{server.Policy{Deny: []string{"a/*"}}, "nonsense", 400},
	} {
		f := serve(t, &server.Options{Policy: tt.policy})
		resp := f.want(f.push("x", tt.raw), tt.status)
		if tt.status == 403 {
			if body := f.body(resp); !strings.Contains(body, "DENIED") || !strings.Contains(body, "are not taken here") {
				t.Errorf("%s", body)
			}
			f.want(f.do("GET", "/v2/x/manifests/v1", ""), http.StatusNotFound)
		}
	}
}

func TestClassesOfAUser(t *testing.T) {
	f := withTokens(t)
	bearer := "Bearer " + f.token("bob", "repository:bob/x:pull,push").Token
	f.want(f.push("bob/x", emptyIndex, "Authorization", bearer), http.StatusCreated)
	resp := f.want(f.push("bob/x", artifact("a/b"), "Authorization", bearer), http.StatusForbidden)
	if body := f.body(resp); !strings.Contains(body, "DENIED") || !strings.Contains(body, "a/b") || !strings.Contains(body, "application/vnd.oci.image.*") {
		t.Errorf("%s", body)
	}
}
