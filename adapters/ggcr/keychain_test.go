package ggcr_test

import (
	"context"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/adapters/ggcr"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/remote/auth"
)

// keys are credentials by what they are asked for.
type keys map[string]authn.AuthConfig

func (k keys) Resolve(what authn.Resource) (authn.Authenticator, error) {
	for _, key := range []string{what.String(), what.RegistryStr()} {
		if config, ok := k[key]; ok {
			return authn.FromConfig(config), nil
		}
	}
	return authn.Anonymous, nil
}

func TestCredentialsAreThoseOfTheKeychain(t *testing.T) {
	alice := authn.AuthConfig{Username: "alice", Password: "secret"}
	find := ggcr.Credentials(keys{
		"registry.example":          alice,
		"registry.example/team/app": {Username: "robot", Password: "other"},
		"identity.example":          {Username: "<token>", IdentityToken: "identity"},
		"token.example":             {RegistryToken: "access"},
		"encoded.example":           {Auth: base64.StdEncoding.EncodeToString([]byte("bob:pass:word"))},
		"unpadded.example":          {Auth: base64.RawStdEncoding.EncodeToString([]byte("bob:pass"))},
		name.DefaultRegistry:        {Username: "hub", Password: "docker"},
	})
	tests := []struct {
		host, repository string
		want             auth.Credential
	}{
		{"registry.example", "", auth.Credential{Username: "alice", Password: "secret"}},
		{"registry.example", "team/web", auth.Credential{Username: "alice", Password: "secret"}},
		{"registry.example", "team/app", auth.Credential{Username: "robot", Password: "other"}},
		{"identity.example", "", auth.Credential{Username: "<token>", IdentityToken: "identity"}},
		{"token.example", "", auth.Credential{AccessToken: "access"}},
		{"encoded.example", "", auth.Credential{Username: "bob", Password: "pass:word"}},
		{"unpadded.example", "", auth.Credential{Username: "bob", Password: "pass"}},
		{"registry-1.docker.io", "library/alpine", auth.Credential{Username: "hub", Password: "docker"}},
		{"docker.io", "", auth.Credential{Username: "hub", Password: "docker"}},
		{"elsewhere.example", "", auth.Credential{}},
	}
	for _, tt := range tests {
		ctx := t.Context()
		if tt.repository != "" {
			ctx = auth.WithScopes(ctx, auth.Repository(tt.repository, "pull"))
		}
		got, err := find(ctx, tt.host)
		if got != tt.want || err != nil {
			t.Errorf("%s/%s has %v (%q), want %v: %v", tt.host, tt.repository, got, got.Password, tt.want, err)
		}
	}
}

func TestAKeychainWithoutCredentials(t *testing.T) {
	for what, keychain := range map[string]authn.Keychain{"none": nil, "empty": keys{}, "of no lookup": ggcr.Keychain(nil), "nothing": nothing{}} {
		got, err := ggcr.Credentials(keychain)(t.Context(), "registry.example")
		if got != (auth.Credential{}) || err != nil {
			t.Errorf("keychain %s has %v: %v", what, got, err)
		}
	}
}

// nothing answers with less than it should.
type nothing struct{}

func (nothing) Resolve(authn.Resource) (authn.Authenticator, error) { return nil, nil }

func TestABadAuthFieldIsNotRepeated(t *testing.T) {
	for _, field := range []string{"?secret?", base64.StdEncoding.EncodeToString([]byte("secret without colon"))} {
		_, err := ggcr.Credentials(keys{"registry.example": {Auth: field}})(t.Context(), "registry.example")
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), field) {
			t.Errorf("auth field %q: %v", field, err)
		}
	}
}

// failing is a keychain that cannot be read.
type failing struct{ err error }

func (f failing) Resolve(authn.Resource) (authn.Authenticator, error) { return nil, f.err }

func TestALookupThatFails(t *testing.T) {
	broken := errors.New("the store is locked")
	if _, err := ggcr.Credentials(failing{broken})(t.Context(), "registry.example"); !errors.Is(err, broken) {
		t.Errorf("a keychain that fails is %v", err)
	}
	back := ggcr.Keychain(func(context.Context, string) (auth.Credential, error) { return auth.Credential{}, broken })
	if _, err := back.Resolve(registryOf(t, "registry.example")); !errors.Is(err, broken) {
		t.Errorf("a lookup that fails is %v", err)
	}
}

func registryOf(t *testing.T, host string) name.Registry {
	t.Helper()
	registry, err := name.NewRegistry(host)
	must(t, err)
	return registry
}

func TestAKeychainIsTheLookup(t *testing.T) {
	for _, want := range []auth.Credential{
		{},
		{Username: "alice", Password: "secret"},
		{Username: "alice", IdentityToken: "identity"},
		{IdentityToken: "identity"},
		{AccessToken: "access"},
		{Username: "alice", Password: "secret", IdentityToken: "identity", AccessToken: "access"},
	} {
		keychain := ggcr.Keychain(auth.Static("registry.example", want))
		got, err := ggcr.Credentials(keychain)(t.Context(), "registry.example")
		if got != want || err != nil {
			t.Errorf("%v came back as %v: %v", want, got, err)
		}
	}
}

func TestWhatAKeychainSays(t *testing.T) {
	keychain := ggcr.Keychain(auth.Static("registry.example", auth.Credential{Username: "<token>", Password: "identity"}))
	found, err := keychain.Resolve(registryOf(t, "registry.example"))
	must(t, err)
	got, err := found.Authorization()
	must(t, err)
	if want := (authn.AuthConfig{Username: "<token>", IdentityToken: "identity"}); *got != want {
		t.Errorf("an identity token by its user name is %+v, want %+v", *got, want)
	}
	other, err := keychain.Resolve(registryOf(t, "elsewhere.example"))
	must(t, err)
	if other != authn.Anonymous {
		t.Errorf("another host has %+v, and is not anonymous", other)
	}
}

// The lookup is asked by the name that berth would ask for, each time, with the context that it was asked in.
func TestHowAKeychainAsks(t *testing.T) {
	type key struct{}
	var asked []string
	keychain := ggcr.Keychain(func(ctx context.Context, host string) (auth.Credential, error) {
		who, _ := ctx.Value(key{}).(string)
		text := who + " " + host
		for _, scope := range auth.Scopes(ctx) {
			text += " " + scope.Name
		}
		asked = append(asked, text)
		return auth.Credential{Username: "alice", Password: "secret"}, nil
	})
	for _, text := range []string{"Registry.Example:5000/team/app", "alpine"} {
		repo, err := name.NewRepository(strings.ToLower(text))
		must(t, err)
		found, err := authn.Resolve(context.WithValue(t.Context(), key{}, "resolve"), keychain, repo)
		must(t, err)
		_, err = authn.Authorization(context.WithValue(t.Context(), key{}, "authorize"), found)
		must(t, err)
	}
	want := []string{
		"resolve registry.example:5000 team/app", "authorize registry.example:5000 team/app",
		"resolve registry-1.docker.io library/alpine", "authorize registry-1.docker.io library/alpine",
	}
	if strings.Join(asked, "\n") != strings.Join(want, "\n") {
		t.Errorf("the lookup was asked %q, want %q", asked, want)
	}
}

// go-containerregistry logs in to a real registry with what berth looks up.
func TestGGCRLogsInByAKeychain(t *testing.T) {
	registry := open(t)
	img := image(t, amd64, layer(t, "one"))
	_, err := registry.Push(t.Context(), ggcr.Source(img), "app/hello:v1", nil)
	must(t, err)
	e := registry.Endpoint()
	ref, err := name.NewTag(e.Host + "/app/hello:v1")
	must(t, err)
	if _, err := remote.Image(ref, remote.WithContext(t.Context())); !isStatus(err, 401) {
		t.Errorf("without a login: %v", err)
	}
	login := auth.Static(e.Host, auth.Credential{Username: e.Username, Password: e.Password})
	pulled, err := remote.Image(ref, remote.WithAuthFromKeychain(ggcr.Keychain(login)), remote.WithContext(t.Context()))
	must(t, err)
	sameImage(t, pulled, img)
	// And what a registry gave it goes back into berth.
	pushed, err := registry.Push(t.Context(), ggcr.Source(pulled), "app/copy:v1", nil)
	must(t, err)
	if want := digestOf(t, img); string(pushed.Descriptor.Digest) != want {
		t.Errorf("the copy is %s, want %s", pushed.Descriptor.Digest, want)
	}
}

// What a registry does not have is missing in berth's words, too.
func TestAnImageThatARegistryLost(t *testing.T) {
	registry := open(t)
	img := image(t, amd64, layer(t, "one"))
	_, err := registry.Push(t.Context(), ggcr.Source(img), "app/hello:v1", nil)
	must(t, err)
	e := registry.Endpoint()
	ref, err := name.NewTag(e.Host + "/app/hello:v1")
	must(t, err)
	login := &authn.Basic{Username: e.Username, Password: e.Password}
	pulled, err := remote.Image(ref, remote.WithAuth(login), remote.WithContext(t.Context()))
	must(t, err)
	m, err := pulled.Manifest()
	must(t, err)
	must(t, repository(t, registry, "app/hello").DeleteBlob(t.Context(), digestFrom(m.Layers[0].Digest)))
	_, err = registry.Push(t.Context(), ggcr.Source(pulled), "app/copy:v1", nil)
	var answer *transport.Error
	if !errors.Is(err, berth.ErrBlobUnknown) || !errors.As(err, &answer) {
		t.Errorf("an image without a layer is pushed: %v", err)
	}
}

// Berth logs in to a real registry with what docker has stored, as go-containerregistry reads it.
func TestBerthLogsInByTheDefaultKeychain(t *testing.T) {
	registry := open(t)
	pushed, err := registry.Push(t.Context(), ggcr.Source(image(t, amd64, layer(t, "one"))), "app/hello:v1", nil)
	must(t, err)
	e := registry.Endpoint()
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("DOCKER_CONFIG", home)
	for _, without := range []string{"DOCKER_AUTH_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"} {
		t.Setenv(without, "")
	}
	images := sdk.NewImages(&sdk.Options{Credentials: ggcr.Credentials(authn.DefaultKeychain)})
	if _, err := images.Resolve(t.Context(), e.Host+"/app/hello:v1"); !errors.Is(err, berth.ErrUnauthorized) {
		t.Errorf("without a login: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(home, "config.json"), e.DockerConfig(), 0o600))
	got, err := images.Resolve(t.Context(), e.Host+"/app/hello:v1")
	must(t, err)
	if got.Digest != pushed.Descriptor.Digest {
		t.Errorf("it is %s, want %s", got.Digest, pushed.Descriptor.Digest)
	}
}
