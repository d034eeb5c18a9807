package berthtest_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"time"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/berthtest"
	"github.com/berthoci/berth/sdk/remote/auth"
)

// In a test, t is the test's.
func Example() {
	registry := berthtest.New(t)
	registry.PushImage("team/app:v1", &berthtest.Image{Layers: 2})

	// What is tested knows the address, and nothing else.
	resp, err := http.Get(registry.URL() + "/v2/team/app/tags/list")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()

	fmt.Println(resp.Status)
	for _, r := range registry.Requests() {
		fmt.Println(r.Method, r.Path, r.Status)
	}
	// Output:
	// 200 OK
	// GET /v2/team/app/tags/list 200
}

// A test takes the program that its users have, and skips where that is not installed.
func ExampleNewWith() {
	if _, err := exec.LookPath("berth"); err != nil {
		return
	}
	registry := berthtest.NewWith(t, &berthtest.Options{Launcher: host.Binary("berth")})
	registry.PushImage("app:v1", nil)
}

// A sync to a registry that wants a token and falters.
func ExampleOptions_credentials() {
	to := berthtest.New(t)
	to.RequireToken("ada", "secret")
	to.Fail(berthtest.On("PUT /v2/*/manifests/*"), 1, http.StatusServiceUnavailable)
	from := berthtest.NewWith(t, &berthtest.Options{
		Credentials: auth.Static(to.Host(), auth.Credential{Username: "ada", Password: "secret"}),
	})
	from.PushImage("app:v1", nil)

	report, err := from.Sync(t.Context(), &sdk.SyncOptions{To: to.Host() + "/team", Patterns: []string{"app"}})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(report.Items[0].Target, report.Items[0].Change, to.Count(berthtest.On("PUT /v2/*/manifests/*")))
	// Output:
	// team/app:v1 new 2
}

func ExampleOn() {
	pulls := berthtest.On("GET /v2/*/manifests/*")
	fmt.Println(pulls(berthtest.Request{Method: "GET", Path: "/v2/team/app/manifests/v1"}))
	fmt.Println(pulls(berthtest.Request{Method: "HEAD", Path: "/v2/team/app/manifests/v1"}))
	// Output:
	// true
	// false
}

func ExampleRegistry_PushImage() {
	registry := berthtest.New(t)
	one := registry.PushImage("app:v1,latest", &berthtest.Image{Platforms: []string{"linux/amd64", "linux/arm64"}, Seed: 1})
	two := registry.PushImage("app:v2", &berthtest.Image{Platforms: []string{"linux/amd64", "linux/arm64"}, Seed: 1})
	fmt.Println(one.MediaType, one.Digest == two.Digest)
	// Output:
	// application/vnd.oci.image.index.v1+json true
}

func ExampleRegistry_RequireToken() {
	registry := berthtest.New(t)
	registry.RequireToken("ada", "secret")
	resp, err := http.Get(registry.URL() + "/v2/app/tags/list")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
	challenge := resp.Header.Get("WWW-Authenticate")
	fmt.Println(strings.ReplaceAll(challenge, registry.Host(), "127.0.0.1:PORT"))
	// Output:
	// 401 Unauthorized
	// Bearer realm="http://127.0.0.1:PORT/token",service="berthtest",scope="repository:app:pull"
}

func ExampleRegistry_Fail() {
	registry := berthtest.New(t)
	registry.Fail(berthtest.On("GET /v2/"), 2, http.StatusServiceUnavailable)
	for range 3 {
		resp, err := http.Get(registry.URL() + "/v2/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		fmt.Println(resp.Status)
	}
	// Output:
	// 200 OK
	// 503 Service Unavailable
	// 200 OK
}

// Manifests take their time, and layers come slowly.
func ExampleRegistry_Limit() {
	registry := berthtest.New(t)
	registry.Slow(berthtest.On("/v2/*/manifests/*"), 50*time.Millisecond)
	registry.Limit(berthtest.On("/v2/*/blobs/*"), 64<<10)
}
