package ggcr

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/berthoci/berth/sdk/remote/auth"
)

const (
	// tokenUser is the user name that stands for "the password is an identity token".
	tokenUser = "<token>"
	// hubAPI is where Docker Hub's API is: berth looks credentials up by that name.
	hubAPI = "registry-1.docker.io"
)

// Credentials looks credentials up in a keychain, for what takes them as berth does: the options of package sdk
// and of package remote. The keychain is asked for the repository that a request is about, where it is about
// one, and Docker Hub has the name that go-containerregistry gives it. Nil is nobody's keychain: it has none.
func Credentials(keys authn.Keychain) auth.CredentialFunc {
	return func(ctx context.Context, host string) (auth.Credential, error) {
		if keys == nil {
			return auth.Credential{}, nil
		}
		found, err := authn.Resolve(ctx, keys, asked(ctx, host))
		if err != nil || found == nil {
			return auth.Credential{}, err
		}
		config, err := authn.Authorization(ctx, found)
		if err != nil || config == nil {
			return auth.Credential{}, err
		}
		return credential(config)
	}
}

// resource is what a keychain is asked for.
type resource struct{ registry, repository string }

func (r resource) RegistryStr() string { return r.registry }

func (r resource) String() string {
	if r.repository == "" {
		return r.registry
	}
	return r.registry + "/" + r.repository
}

func asked(ctx context.Context, host string) resource {
	r := resource{registry: host}
	if isHub(host) {
		r.registry = name.DefaultRegistry
	}
	for _, scope := range auth.Scopes(ctx) {
		if scope.Type == "repository" {
			r.repository = scope.Name
			break
		}
	}
	return r
}

func isHub(host string) bool {
	return host == hubAPI || host == name.DefaultRegistry || host == "docker.io"
}

var errAuthField = errors.New("its auth field is not USER:PASSWORD in base64")

// credential reads what an authenticator returns, with the same precedence as go-containerregistry.
func credential(c *authn.AuthConfig) (auth.Credential, error) {
	cred := auth.Credential{Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, AccessToken: c.RegistryToken}
	if c.Auth == "" || c.Username != "" && c.Password != "" {
		return cred, nil
	}
	plain, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(c.Auth, "="))
	username, password, found := strings.Cut(string(plain), ":")
	if err != nil || !found {
		return auth.Credential{}, errAuthField // and not what it is
	}
	cred.Username, cred.Password = username, password
	return cred, nil
}

// Keychain is a credential lookup of berth's, like [auth.Docker], as go-containerregistry takes it. It is asked
// once by Resolve, whether there is a credential, and anew whenever an Authenticator is asked for it: a lookup
// that is slow keeps its results. Nil has none.
func Keychain(lookUp auth.CredentialFunc) authn.Keychain { return keychain{lookUp} }

type keychain struct{ lookUp auth.CredentialFunc }

func (k keychain) Resolve(what authn.Resource) (authn.Authenticator, error) {
	return k.ResolveContext(context.Background(), what)
}

// ResolveContext is Resolve with a context: see [authn.ContextKeychain].
func (k keychain) ResolveContext(ctx context.Context, what authn.Resource) (authn.Authenticator, error) {
	if k.lookUp == nil {
		return authn.Anonymous, nil
	}
	a := newAuthenticator(k.lookUp, what)
	cred, err := a.credential(ctx)
	if err != nil {
		return nil, err
	}
	if cred == (auth.Credential{}) {
		return authn.Anonymous, nil
	}
	return a, nil
}

// authenticator looks the credential for one resource up.
type authenticator struct {
	lookUp     auth.CredentialFunc
	host       string
	repository string
}

func newAuthenticator(lookUp auth.CredentialFunc, what authn.Resource) *authenticator {
	host := what.RegistryStr()
	repository, _ := strings.CutPrefix(strings.TrimPrefix(what.String(), host), "/")
	host = strings.ToLower(host)
	if isHub(host) {
		host = hubAPI
	}
	return &authenticator{lookUp, host, repository}
}

func (a *authenticator) credential(ctx context.Context) (auth.Credential, error) {
	if a.repository != "" {
		ctx = auth.WithScopes(ctx, auth.Repository(a.repository, "pull"))
	}
	cred, err := a.lookUp(ctx, a.host)
	if err != nil {
		return auth.Credential{}, fmt.Errorf("credential for %s: %w", a.host, err)
	}
	return cred, nil
}

func (a *authenticator) Authorization() (*authn.AuthConfig, error) {
	return a.AuthorizationContext(context.Background())
}

// AuthorizationContext is Authorization with a context: see [authn.ContextAuthenticator].
func (a *authenticator) AuthorizationContext(ctx context.Context) (*authn.AuthConfig, error) {
	cred, err := a.credential(ctx)
	if err != nil {
		return nil, err
	}
	config := &authn.AuthConfig{Username: cred.Username, Password: cred.Password, IdentityToken: cred.IdentityToken, RegistryToken: cred.AccessToken}
	if cred.Username == tokenUser && cred.IdentityToken == "" {
		config.Password, config.IdentityToken = "", cred.Password
	}
	return config, nil
}
