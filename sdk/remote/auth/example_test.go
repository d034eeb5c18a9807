package auth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/remote/auth"
)

// registry is one that wants a token for each repository, and gives it to alice.
func registry() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		switch {
		case r.URL.Path == "/token" && user == "alice":
			fmt.Fprintf(w, `{"token":"for-%s"}`, r.FormValue("scope"))
		case r.URL.Path == "/token":
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"errors":[{"code":"DENIED","message":"members only"}]}`)
		case r.Header.Get("Authorization") == "Bearer for-repository:app/web:pull":
			io.WriteString(w, `{"name":"app/web","tags":["v1"]}`)
		default:
			w.Header().Set("WWW-Authenticate", `Bearer realm="/token",service="example"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
}

func ExampleTransport() {
	server := registry()
	defer server.Close()

	host := server.Listener.Addr().String()
	client := &http.Client{Transport: &auth.Transport{
		Credentials: auth.Chain(
			auth.Static(host, auth.Credential{Username: "alice", Password: "secret"}),
			auth.Docker(),
		),
		UserAgent: "tool/1.0",
	}}
	ctx := auth.WithScopes(context.Background(), auth.Repository("app/web", "pull"))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/v2/app/web/tags/list", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp, err := client.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(body), err)
	// Output: 200 {"name":"app/web","tags":["v1"]} <nil>
}

// token is what golang.org/x/oauth2 calls a Token, and source what it calls a TokenSource: these are their
// methods that are needed, and the real ones are used in the same way.
type token struct{ AccessToken string }

func (t *token) SetAuthHeader(r *http.Request) {
	r.Header.Set("Authorization", "Bearer "+t.AccessToken)
}

type source struct{}

func (source) Token() (*token, error) { return &token{"for-repository:app/web:pull"}, nil }

func ExampleTokenSource() {
	server := registry()
	defer server.Close()

	host := server.Listener.Addr().String()
	client := &http.Client{Transport: &auth.Transport{
		Credentials: auth.Chain(auth.TokenSource(host, source{}), auth.Docker()),
	}}
	resp, err := client.Get(server.URL + "/v2/app/web/tags/list")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode)
	// Output: 200
}

func ExampleGuardDial() {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.DialContext = auth.GuardDial(&net.Dialer{Timeout: 30 * time.Second})
	client := &http.Client{Transport: &auth.Transport{Base: base, Credentials: auth.Docker()}}
	client.CloseIdleConnections()
}

func ExampleWithTrace() {
	server := registry()
	defer server.Close()

	client := &http.Client{Transport: &auth.Transport{
		Credentials: auth.Static(server.Listener.Addr().String(), auth.Credential{Username: "alice", Password: "secret"}),
	}}
	var trace auth.Trace
	ctx := auth.WithTrace(context.Background(), &trace)
	req, err := http.NewRequestWithContext(auth.WithScopes(ctx, auth.Repository("app/api", "pull")), http.MethodGet, server.URL+"/v2/app/api/tags/list", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp, err := client.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusUnauthorized && trace.Granted {
		fmt.Println(trace.Credential, "may not do that")
	}
	// Output: alice may not do that
}

func ExampleError() {
	server := registry()
	defer server.Close()

	client := &http.Client{Transport: &auth.Transport{}}
	_, err := client.Get(server.URL + "/v2/app/web/tags/list")
	var failed *auth.Error
	if errors.As(err, &failed) && errors.Is(err, berth.ErrDenied) {
		fmt.Println(failed.Status, failed.Credential, failed.Message)
	}
	// Output: 403 anonymous DENIED: members only
}

func ExampleRepository() {
	fmt.Println(auth.Repository("app/web", "push", "pull"))
	// Output: repository:app/web:pull,push
}
