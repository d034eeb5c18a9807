//go:build linux

package e2e

import (
	"testing"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/registrytest"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/remote/auth"
)

// lacking is what the distribution registry cannot do:
//
//   - It takes no notice of If-Match and If-None-Match when a manifest is put or deleted.
//   - It finds the digest of a manifest itself, always by SHA-256, and refuses one that was put under another.
//   - Manifests of schema 1 were taken out of it with version 3.
//   - It mounts where the parameter from names a repository, and begins an upload where there is none.
//   - It looks for a layer of a type that does not say that the layer lies elsewhere, also where its descriptor has urls.
//   - The list of tags is that of a directory which is there as soon as there was a tag.
var lacking = registrytest.Lacks{
	Races: true, ManifestDigests: true, Schema1: true, MountsFromAny: true, ForeignLayers: true, TagListsWithoutTags: true,
}

// The client, and a registry that is not berth's, do what is demanded of a directory.
func TestTheContractOverTheDistributionRegistry(t *testing.T) {
	for name, open := range map[string]func(*shell) (host string){
		"for anybody": func(s *shell) string { return s.registry("") },
		"with tokens": func(s *shell) string {
			tokens := s.tokenServer()
			tokens.grant("pull", "push", "delete", "*")
			return s.registry(tokens.config())
		},
	} {
		t.Run(name, func(t *testing.T) {
			registrytest.RunLacking(t, lacking, func(t *testing.T) berth.Registry {
				s := newShell(t).with("REGISTRY_STORAGE_DELETE_ENABLED=true")
				host := open(s)
				login := auth.Static(host, auth.Credential{Username: user, Password: password})
				registry, err := remote.New(host, &remote.Options{Credentials: login})
				s.check(err)
				return registry
			})
		})
	}
}
