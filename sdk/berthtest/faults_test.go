package berthtest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/berthtest"
	"github.com/berthoci/berth/sdk/remote"
)

const manifestV1 = "/v2/app/manifests/v1"

func TestFailMeansOneRequest(t *testing.T) {
	registry := berthtest.New(t)
	registry.PushImage("app:v1", nil)
	registry.Fail(berthtest.On("GET "+manifestV1), 2, http.StatusServiceUnavailable)
	var got []int
	for range 3 {
		ask(t.Context(), registry, http.MethodHead, manifestV1, "", "")
		got = append(got, ask(t.Context(), registry, http.MethodGet, manifestV1, "", "").status)
	}
	if got[0] != 200 || got[1] != 503 || got[2] != 200 {
		t.Errorf("got %v, want 200, 503, 200", got)
	}
}

func TestFailMeansEachRequest(t *testing.T) {
	registry := berthtest.New(t)
	registry.PushImage("app:v1", nil)
	registry.Fail(berthtest.On(manifestV1), 0, http.StatusForbidden)
	for range 3 {
		if got := ask(t.Context(), registry, http.MethodGet, manifestV1, "", ""); got.status != http.StatusForbidden {
			t.Errorf("got %+v", got)
		}
	}
	if got := ask(t.Context(), registry, http.MethodGet, "/v2/", "", ""); got.status != http.StatusOK {
		t.Errorf("what is not meant: %+v", got)
	}
}

// A client reads what it would read of a real registry.
func TestFailSpeaksAsRegistriesDo(t *testing.T) {
	registry := berthtest.New(t)
	for _, c := range []struct {
		path   string
		status int
		want   error
	}{
		{manifestV1, 401, berth.ErrUnauthorized},
		{manifestV1, 403, berth.ErrDenied},
		{manifestV1, 404, berth.ErrManifestUnknown},
		{"/v2/app/blobs/sha256:0", 404, berth.ErrBlobUnknown},
		{"/v2/app/blobs/uploads/1", 404, berth.ErrUploadUnknown},
		{"/v2/app/tags/list", 404, berth.ErrNameUnknown},
		{manifestV1, 405, berth.ErrUnsupported},
		{manifestV1, 412, berth.ErrPreconditionFailed},
		{manifestV1, 413, berth.ErrSizeInvalid},
		{manifestV1, 416, berth.ErrRangeInvalid},
		{manifestV1, 429, berth.ErrTooManyRequests},
		{manifestV1, 500, &berth.Error{Code: "UNKNOWN"}},
	} {
		registry.Reset()
		registry.Fail(nil, 1, c.status)
		got := ask(t.Context(), registry, http.MethodGet, c.path, "", "")
		if got.status != c.status || !strings.Contains(got.body, `"code":"`+berth.Code(c.want)+`"`) || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: got %+v, want status %d and %v", c.path, got, c.status, c.want)
		}
	}
}

func TestFailKeepsTheRequestFromTheRegistry(t *testing.T) {
	registry := berthtest.New(t)
	want := registry.PushImage("app:v1", nil)
	registry.Fail(berthtest.On("DELETE *"), 1, http.StatusBadGateway)
	ask(t.Context(), registry, http.MethodDelete, "/v2/app/manifests/"+string(want.Digest), "", "")
	if _, err := registry.Resolve(t.Context(), "app:v1"); err != nil {
		t.Error(err)
	}
}

// send sends a request as a client does that listens when it has sent everything. Less may be sent than is announced.
func send(t *testing.T, registry *berthtest.Registry, line string, announced, sent int) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", registry.Host())
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", line, registry.Host(), announced, strings.Repeat("x", sent))
	must(t, err)
	return conn
}

func TestFailIsHeardHoweverMuchIsSent(t *testing.T) {
	registry := berthtest.New(t)
	registry.Fail(nil, 1, http.StatusBadGateway)
	const more = 64 << 20 // than any socket keeps
	resp, err := http.ReadResponse(bufio.NewReader(send(t, registry, "PUT "+manifestV1, more, more)), nil)
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadGateway {
		t.Errorf("got %s", resp.Status)
	}
}

func TestCloseDoesNotWaitForClients(t *testing.T) {
	registry := berthtest.New(t)
	registry.Fail(berthtest.On("PUT *"), 0, http.StatusBadGateway)
	send(t, registry, "PUT "+manifestV1, 100, 10)
	registry.PushImage("app:v1", &berthtest.Image{Size: 64 << 20})
	path, _ := blob(t, registry, "app:v1")
	send(t, registry, "GET "+path, 0, 0)
	eventually(t, "both are there", func() bool { return running("berthtest.(*front).ServeHTTP") == 2 })
	must(t, registry.Close())
}

func TestFailCanCutTheConnection(t *testing.T) {
	registry := berthtest.New(t)
	want := registry.PushImage("app:v1", nil)
	registry.Fail(berthtest.On("DELETE *"), 1, 0)
	if got := ask(t.Context(), registry, http.MethodDelete, "/v2/app/manifests/"+string(want.Digest), "", ""); got.err == nil {
		t.Errorf("got %+v", got)
	}
	if _, err := registry.Resolve(t.Context(), "app:v1"); err != nil {
		t.Error(err)
	}
	if all := registry.Requests(); len(all) != 1 || all[0].Status != 0 {
		t.Errorf("got %+v", all)
	}
}

func TestCutWithholdsTheAnswerOfWhatWasDone(t *testing.T) {
	registry := berthtest.New(t)
	want := registry.PushImage("app:v1", nil)
	registry.Cut(berthtest.On("DELETE *"), 1, 0)
	if got := ask(t.Context(), registry, http.MethodDelete, "/v2/app/manifests/"+string(want.Digest), "", ""); got.err == nil {
		t.Errorf("got %+v", got)
	}
	if _, err := registry.Resolve(t.Context(), "app:v1"); !errors.Is(err, berth.ErrManifestUnknown) {
		t.Errorf("got %v: the registry did not get the request", err)
	}
	registry.PushImage("app:v1", nil)
	registry.Cut(nil, 1, 0)
	if got := ask(t.Context(), registry, http.MethodGet, manifestV1, "", ""); got.err == nil || got.status != 0 {
		t.Errorf("of an answer with a body: %+v", got)
	}
}

// blob is the path of an image's first layer, and its size.
func blob(t *testing.T, registry *berthtest.Registry, ref string) (path string, size int64) {
	t.Helper()
	report, err := registry.Inspect(t.Context(), ref, nil)
	must(t, err)
	return "/v2/" + report.Name + "/blobs/" + string(report.Layers[0].Digest), report.Layers[0].Size
}

func TestCutEndsAnAnswerInItsMiddle(t *testing.T) {
	registry := berthtest.New(t)
	registry.PushImage("app:v1", &berthtest.Image{Size: 1 << 20})
	path, size := blob(t, registry, "app:v1")
	for _, after := range []int64{1, 100_000, size - 1} {
		registry.Cut(berthtest.On(path), 1, after)
		got := ask(t.Context(), registry, http.MethodGet, path, "", "")
		if got.status != http.StatusOK || int64(len(got.body)) != after || !errors.Is(got.err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d: got status %d, %d bytes, %v", after, got.status, len(got.body), got.err)
		}
		registry.Reset()
	}
	registry.Cut(berthtest.On(path), 1, size+1)
	if got := ask(t.Context(), registry, http.MethodGet, path, "", ""); got.err != nil || int64(len(got.body)) != size {
		t.Errorf("one that is shorter: got %d bytes, %v", len(got.body), got.err)
	}
}

// berth's own client goes on where it was cut.
func TestAClientMakesUpForACut(t *testing.T) {
	registry := berthtest.New(t)
	registry.PushImage("app:v1", &berthtest.Image{Size: 1 << 20})
	path, size := blob(t, registry, "app:v1")
	registry.Cut(berthtest.On("GET "+path), 1, 1000)
	at, err := remote.New(registry.Host(), nil)
	must(t, err)
	repo, err := at.Open("app")
	must(t, err)
	image, err := registry.Inspect(t.Context(), "app:v1", nil)
	must(t, err)
	from, err := repo.OpenBlob(t.Context(), image.Layers[0].Digest)
	must(t, err)
	defer from.Close()
	n, err := io.Copy(io.Discard, from)
	if err != nil || n != size {
		t.Errorf("got %d bytes of %d, %v", n, size, err)
	}
	all := registry.Requests()
	if len(all) != 2 || all[1].Header.Get("Range") != "bytes=1000-" {
		t.Errorf("got %+v: want one request, and one for what was missing", all)
	}
}

// held asks for something that will not be answered until the context ends, or the registry closes.
func held(ctx context.Context, registry *berthtest.Registry, method, path, body string) (got chan answer) {
	got = make(chan answer, 1)
	go func() { got <- ask(ctx, registry, method, path, "", body) }()
	return got
}

const forever = 1000 * time.Hour

func TestSlowKeepsARequestWaiting(t *testing.T) {
	registry := berthtest.New(t)
	registry.PushImage("app:v1", nil)
	registry.Slow(berthtest.On(manifestV1), forever)
	ctx, cancel := context.WithCancel(t.Context())
	got := held(ctx, registry, http.MethodGet, manifestV1, "")
	eventually(t, "the request is there", func() bool { return registry.Count(berthtest.On(manifestV1)) == 1 })
	if got := ask(t.Context(), registry, http.MethodGet, "/v2/", "", ""); got.status != http.StatusOK {
		t.Errorf("what is not meant: %+v", got)
	}
	eventually(t, "it waits", func() bool { return running("berthtest.sleep") == 1 })
	cancel()
	if got := <-got; !errors.Is(got.err, context.Canceled) {
		t.Errorf("got %+v", got)
	}
	eventually(t, "nobody waits for who has gone", func() bool { return running("berthtest.sleep") == 0 })
	registry.Slow(nil, 0)
	if got := ask(t.Context(), registry, http.MethodGet, manifestV1, "", ""); got.status != http.StatusOK {
		t.Errorf("the last one does not count: %+v", got)
	}
}

func TestCloseCutsWhatIsSlow(t *testing.T) {
	for what, slow := range map[string]func(*berthtest.Registry){
		"Slow":  func(r *berthtest.Registry) { r.Slow(nil, forever) },
		"Limit": func(r *berthtest.Registry) { r.Limit(nil, 1) },
	} {
		registry := berthtest.New(t)
		slow(registry)
		down, up := held(t.Context(), registry, http.MethodGet, "/v2/", ""), held(t.Context(), registry, http.MethodPut, manifestV1, strings.Repeat("x", 1<<20))
		eventually(t, "they are there", func() bool { return running("berthtest.sleep") == 2 })
		must(t, registry.Close())
		if n := running("berthtest.(*front).ServeHTTP"); n != 0 {
			t.Errorf("%s: %d requests are under way after Close", what, n)
		}
		if got := <-down; got.err == nil {
			t.Errorf("%s: got %+v", what, got)
		}
		if got := <-up; got.err == nil {
			t.Errorf("%s: got %+v", what, got)
		}
	}
}

// Of what would take hours, something comes through and not all.
func TestLimitBoundsAnAnswer(t *testing.T) {
	registry := berthtest.New(t)
	registry.PushImage("app:v1", &berthtest.Image{Size: 1 << 20})
	path, size := blob(t, registry, "app:v1")
	registry.Limit(berthtest.On(path), 100)
	resp, err := once.Get(registry.URL() + path)
	must(t, err)
	defer resp.Body.Close()
	_, err = io.ReadFull(resp.Body, make([]byte, 10))
	must(t, err)
	must(t, registry.Close())
	rest, err := io.Copy(io.Discard, resp.Body)
	if err == nil || rest+10 >= size {
		t.Errorf("%d bytes of %d came, %v", rest, size, err)
	}
}

func TestLimitBoundsARequest(t *testing.T) {
	registry := berthtest.New(t)
	registry.Limit(berthtest.On("PUT *"), 100)
	got := held(t.Context(), registry, http.MethodPut, manifestV1, strings.Repeat("x", 1<<20))
	eventually(t, "it is sent", func() bool { return running("berthtest.(*slowBody).Read") == 1 })
	must(t, registry.Close())
	if got := <-got; got.err == nil {
		t.Errorf("got %+v", got)
	}
}

func TestLimitLetsEverythingThroughAtLast(t *testing.T) {
	registry := berthtest.New(t)
	registry.PushImage("app:v1", &berthtest.Image{Size: 1 << 16})
	path, size := blob(t, registry, "app:v1")
	registry.Limit(nil, 1<<21)
	got := ask(t.Context(), registry, http.MethodGet, path, "", "")
	if got.err != nil || strconv.Itoa(len(got.body)) != got.header.Get("Content-Length") || int64(len(got.body)) != size {
		t.Errorf("got %d bytes of %d, %v", len(got.body), size, got.err)
	}
	pushThrough(t, registry)
}

// Who has shown a password is known also where the request fails.
func TestARequestThatFailsIsAuthenticated(t *testing.T) {
	registry := berthtest.New(t)
	registry.RequireBasic("ada", "canary.secret")
	registry.Fail(nil, 1, http.StatusServiceUnavailable)
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, registry.URL()+"/v2/", nil)
		must(t, err)
		req.SetBasicAuth("ada", "canary.secret")
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		resp.Body.Close()
	}
	for i, r := range registry.Requests() {
		if !r.Authenticated {
			t.Errorf("request %d with status %d is not authenticated", i, r.Status)
		}
	}
}
