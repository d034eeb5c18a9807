package berthtest

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/berthoci/berth/sdk"
)

// frontOf is a front before a server.
func frontOf(t *testing.T, backend *httptest.Server) *front {
	t.Helper()
	f, err := newFront(func() sdk.Endpoint {
		return sdk.Endpoint{Host: backend.Listener.Addr().String(), Username: "any", Password: "canary.secret"}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

// ask returns the answer of a front, whose body is read.
func ask(t *testing.T, req *http.Request) (*http.Response, string) {
	t.Helper()
	// Redirects are the client's to follow, and here to be seen.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestLocationsOfTheRegistryLeadToTheFront(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("send"))
		w.WriteHeader(http.StatusAccepted)
	}))
	defer backend.Close()
	f := frontOf(t, backend)
	for sent, want := range map[string]string{
		"/v2/app/blobs/uploads/1?state=a%2Fb":                  "/v2/app/blobs/uploads/1?state=a%2Fb",
		backend.URL + "/v2/app/blobs/uploads/1?state=a%2Fb":    "/v2/app/blobs/uploads/1?state=a%2Fb",
		"https://cdn.example.com/v2/app/blobs/uploads/1?sig=x": "https://cdn.example.com/v2/app/blobs/uploads/1?sig=x",
		"": "",
	} {
		req, _ := http.NewRequest(http.MethodPost, f.server.URL+"/v2/app/blobs/uploads/?"+url.Values{"send": {sent}}.Encode(), nil)
		if resp, _ := ask(t, req); resp.Header.Get("Location") != want {
			t.Errorf("%q became %q, want %q", sent, resp.Header.Get("Location"), want)
		}
	}
}

// What a client sends reaches the registry as it is, but for who it says it is and whom it speaks to.
func TestRequestsArePassedOnAsTheyAre(t *testing.T) {
	got := make(chan *http.Request, 1)
	backend := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r }))
	defer backend.Close()
	f := frontOf(t, backend)
	req, err := http.NewRequest(http.MethodGet, f.server.URL+"/v2/a%2Fb/tags/list?last=%zz;&n=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "registry.test"
	req.Header.Set("Authorization", "Bearer somebody")
	req.Header.Set("Accept", "text/x")
	ask(t, req)
	r := <-got
	if user, password, _ := r.BasicAuth(); user != "any" || password != "canary.secret" || r.Host != backend.Listener.Addr().String() {
		t.Errorf("it came from %s, %s to %s", user, password, r.Host)
	}
	if r.RequestURI != "/v2/a%2Fb/tags/list?last=%zz;&n=1" || r.Header.Get("Accept") != "text/x" || r.Header.Get("X-Forwarded-For") != "" {
		t.Errorf("got %s with %v", r.RequestURI, r.Header)
	}
}

func TestARegistryThatIsGoneIsABadGateway(t *testing.T) {
	backend := httptest.NewServer(http.NotFoundHandler())
	f := frontOf(t, backend)
	backend.Close()
	for _, body := range []string{"", "{}"} {
		req, _ := http.NewRequest(http.MethodPut, f.server.URL+"/v2/app/manifests/v1", strings.NewReader(body))
		resp, said := ask(t, req)
		if resp.StatusCode != http.StatusBadGateway || !strings.Contains(said, `{"errors":[{"code":"UNKNOWN","message":"berthtest: `) {
			t.Errorf("with body %q: got %d, %s", body, resp.StatusCode, said)
		}
	}
}

// Of an answer that is cut before its head, a flush lets nothing out.
func TestAFlushKeepsACutAnswerBack(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		io.WriteString(w, "streamed")
		w.(http.Flusher).Flush()
		io.WriteString(w, ", and more")
	}))
	defer backend.Close()
	f := frontOf(t, backend)
	f.faults.add(&rule{nth: 2, change: func(e *effect) { e.after = 0 }})
	get := func() (*http.Response, error) {
		return (&http.Transport{DisableKeepAlives: true}).RoundTrip(httptest.NewRequest(http.MethodGet, f.server.URL, nil))
	}
	resp, err := get()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "streamed, and more" {
		t.Errorf("got %s, %v", body, err)
	}
	if resp, err := get(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, %v", resp, err)
	}
}
