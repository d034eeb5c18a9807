package server_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/berthoci/berth/server"
)

// listen serves over a socket, for what a recorder does not have.
func (f *fixture) listen() string {
	f.Helper()
	srv := httptest.NewServer(f.handler)
	f.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// client speaks HTTP by hand.
type client struct {
	*testing.T
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn, bufio.NewReader(conn)}
}

func (c *client) say(format string, args ...any) {
	c.Helper()
	if _, err := fmt.Fprintf(c, format, args...); err != nil {
		c.Fatal(err)
	}
}

func (c *client) hear() *http.Response {
	c.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.Fatal(err)
	}
	return resp
}

// upload begins an upload and sends the head of a request that brings its bytes, and none of them.
func (c *client) upload(addr string) {
	c.Helper()
	c.say("POST /v2/x/blobs/uploads/ HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", addr)
	resp := c.hear()
	c.say("PATCH %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n", resp.Header.Get("Location"), addr)
}

func TestUploadsBeyondTheLimit(t *testing.T) {
	f := serve(t, &server.Options{Limits: server.Limits{Uploads: 1, Patience: 10 * time.Millisecond}})
	addr := f.listen()
	first, second := dial(t, addr), dial(t, addr)
	first.upload(addr)
	if resp := first.hear(); resp.StatusCode != http.StatusContinue {
		t.Fatalf("status %d", resp.StatusCode)
	}
	second.upload(addr)
	resp := second.hear()
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("status %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), "TOOMANYREQUESTS") {
		t.Errorf("got %s", body)
	}
	f.want(f.do("GET", "/v2/", ""), http.StatusOK)
	first.say("0123456789")
	if resp := first.hear(); resp.StatusCode != http.StatusAccepted {
		t.Errorf("the first ended with status %d", resp.StatusCode)
	}
	// A place that is given up is there for the next.
	third := dial(t, addr)
	third.upload(addr)
	if resp := third.hear(); resp.StatusCode != http.StatusContinue {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// Who waits gets the place that is given up.
func TestAnUploadWaitsForItsTurn(t *testing.T) {
	f := serve(t, &server.Options{Limits: server.Limits{Uploads: 1, Patience: time.Minute}})
	addr := f.listen()
	first, second := dial(t, addr), dial(t, addr)
	first.upload(addr)
	if resp := first.hear(); resp.StatusCode != http.StatusContinue {
		t.Fatalf("status %d", resp.StatusCode)
	}
	second.upload(addr)
	first.say("0123456789")
	if resp := first.hear(); resp.StatusCode != http.StatusAccepted {
		t.Errorf("status %d", resp.StatusCode)
	}
	if resp := second.hear(); resp.StatusCode != http.StatusContinue {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestRequestsBeyondTheLimit(t *testing.T) {
	f := serve(t, &server.Options{Limits: server.Limits{Requests: 1}})
	addr := f.listen()
	holds := dial(t, addr)
	holds.say("PUT /v2/x/manifests/v1 HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", addr, len(emptyIndex))
	if resp := holds.hear(); resp.StatusCode != http.StatusContinue {
		t.Fatalf("status %d", resp.StatusCode)
	}
	f.want(f.do("GET", "/v2/", ""), http.StatusTooManyRequests, "Retry-After", "1")
	holds.say("%s", emptyIndex)
	if resp := holds.hear(); resp.StatusCode != http.StatusCreated {
		t.Errorf("status %d", resp.StatusCode)
	}
	f.want(f.do("GET", "/v2/", ""), http.StatusOK)
}

// A body that stands still ends, and leaves what has arrived.
func TestABodyThatStandsStill(t *testing.T) {
	f := serve(t, &server.Options{Limits: server.Limits{Stall: 50 * time.Millisecond}})
	addr := f.listen()
	for _, request := range []string{"PUT /v2/x/manifests/v1", "POST /v2/x/blobs/uploads/?digest=" + string(digest.FromString("x")), "PUT /v2/nothing/here"} {
		c := dial(t, addr)
		c.say("%s HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000\r\n\r\nx", request, addr)
		resp := c.hear()
		if resp.StatusCode/100 != 4 {
			t.Errorf("%s: status %d", request, resp.StatusCode)
		}
		if _, err := io.Copy(io.Discard, c.in); err != nil { // the server hangs up
			t.Errorf("%s: %v", request, err)
		}
	}
}

// A client that takes nothing is let go, and others are not kept waiting.
func TestABlobThatNobodyTakes(t *testing.T) {
	f := serve(t, &server.Options{Limits: server.Limits{Stall: 50 * time.Millisecond}})
	large := strings.Repeat("0123456789abcdef", 4<<20)
	d := f.blob("x", large)
	done := make(chan struct{})
	inner := f.handler
	f.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r)
		close(done)
	})
	addr := f.listen()
	dial(t, addr).say("GET /v2/x/blobs/%s HTTP/1.1\r\nHost: %s\r\n\r\n", d, addr)
	<-done
}

// A chunk has exactly the bytes of its range, also where its length is not told.
func TestAChunkIsAsLongAsItsRange(t *testing.T) {
	for sent, want := range map[string]int{"0123": 202, "012": 400, "01234": 400} {
		f := serve(t, nil)
		addr := f.listen()
		c := dial(t, addr)
		c.say("POST /v2/x/blobs/uploads/ HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", addr)
		at := c.hear().Header.Get("Location")
		c.say("PATCH %s HTTP/1.1\r\nHost: %s\r\nContent-Range: 0-3\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", at, addr, len(sent), sent)
		resp := c.hear()
		if resp.StatusCode != want {
			t.Errorf("%q: status %d, want %d", sent, resp.StatusCode, want)
		}
		if want := fmt.Sprintf("0-%d", min(len(sent), 4)-1); resp.Header.Get("Range") != want {
			t.Errorf("%q: Range is %s, want %s", sent, resp.Header.Get("Range"), want)
		}
	}
}

func TestChunksMayHaveASmallestLength(t *testing.T) {
	f := serve(t, &server.Options{MinChunk: 1 << 20})
	f.want(f.do("POST", "/v2/x/blobs/uploads/", ""), http.StatusAccepted, "OCI-Chunk-Min-Length", "1048576")
	f = serve(t, nil)
	f.want(f.do("POST", "/v2/x/blobs/uploads/", ""), http.StatusAccepted, "OCI-Chunk-Min-Length", "")
}

func TestRangesThatAreNotBytes(t *testing.T) {
	f := serve(t, nil)
	at := "/v2/x/blobs/" + string(f.blob("x", "0123456789"))
	for ranges, want := range map[string]string{
		"items=0-1": "0123456789", "": "0123456789", "bytes=0-1": "01", "bytes=-2": "89", "bytes=8-": "89", "bytes=abc": "0123456789", "bytes=5": "0123456789", "bytes=-": "0123456789", "bytes=0-1-2": "0123456789",
		"bytes=0-0" + strings.Repeat(",1-1", 100): "0123456789",
	} {
		resp := f.do("GET", at, "", "Range", ranges)
		if got := f.body(resp); got != want {
			t.Errorf("%.20s: status %d, got %q", ranges, resp.StatusCode, got)
		}
	}
	f.want(f.do("GET", at, "", "Range", "bytes=10-"), http.StatusRequestedRangeNotSatisfiable, "Content-Range", "bytes */10")
	parts := f.want(f.do("GET", at, "", "Range", "bytes=0-1,8-9"), http.StatusPartialContent)
	if kind := parts.Header.Get("Content-Type"); !strings.HasPrefix(kind, "multipart/byteranges") {
		t.Errorf("parts are sent as %s", kind)
	}
}

func TestTheAccessLogHasALineForEachRequest(t *testing.T) {
	var out bytes.Buffer
	f := serve(t, &server.Options{AccessLog: slog.New(slog.NewTextHandler(&out, nil))})
	d := f.blob("x", "0123456789")
	f.do("GET", "/v2/x/blobs/"+string(d), "", "User-Agent", "a tool", "Authorization", "Bearer secret")
	f.do("GET", "/v2/x/manifests/absent?token=secret", "")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines: %s", len(lines), &out)
	}
	for i, want := range [][]string{{"method=POST", "status=201"}, {"method=GET", "status=200", "bytes=10", `agent="a tool"`, string(d)}, {"status=404", "path=/v2/x/manifests/absent"}} {
		for _, text := range want {
			if !strings.Contains(lines[i], text) {
				t.Errorf("%s is not in %s", text, lines[i])
			}
		}
	}
	if strings.Contains(out.String(), "secret") {
		t.Errorf("a secret is in %s", &out)
	}
}

// The time for an answer does not run out while the client still sends.
func TestAnUploadMayTakeLongerThanAnAnswer(t *testing.T) {
	f := serve(t, nil)
	srv := httptest.NewUnstartedServer(f.handler)
	srv.Config.WriteTimeout = 20 * time.Millisecond
	srv.Start()
	t.Cleanup(srv.Close)
	addr := strings.TrimPrefix(srv.URL, "http://")
	c := dial(t, addr)
	c.upload(addr)
	if resp := c.hear(); resp.StatusCode != http.StatusContinue {
		t.Fatalf("status %d", resp.StatusCode)
	}
	c.say("01234")
	time.Sleep(2 * srv.Config.WriteTimeout)
	c.say("56789")
	if resp := c.hear(); resp.StatusCode != http.StatusAccepted {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// In HTTP/2 a client that opens no window for an answer (RFC 9113, 6.9.2) is let go.
func TestAClientThatWantsNoneOfItsAnswer(t *testing.T) {
	f := serve(t, &server.Options{Limits: server.Limits{Stall: 50 * time.Millisecond}})
	f.tag("app/hello", "v1")
	srv := httptest.NewUnstartedServer(f.handler)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	config := srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{http2.NextProtoTLS}
	conn, err := tls.Dial("tcp", srv.Listener.Addr().String(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var head bytes.Buffer
	fields := hpack.NewEncoder(&head)
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", srv.Listener.Addr().String()}, {":path", "/v2/app/hello/manifests/v1"}} {
		fields.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true})
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if reset, ok := frame.(*http2.RSTStreamFrame); ok && reset.StreamID == 1 {
			return
		}
	}
}
