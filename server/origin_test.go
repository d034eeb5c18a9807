package server_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthoci/berth/server"
)

func TestWhoMayAsk(t *testing.T) {
	f := serve(t, &server.Options{Hosts: []string{"registry.test"}})
	for _, tt := range []struct {
		header []string
		status int
	}{
		{[]string{"Host", "localhost:5000"}, 200},
		{[]string{"Host", "127.0.0.1:5000"}, 200},
		{[]string{"Host", "[::1]:5000"}, 200},
		{[]string{"Host", "my.LOCALHOST"}, 200},
		{[]string{"Host", "registry.test:5000"}, 200},
		{[]string{"Host", "evil.example"}, 403},
		{[]string{"Host", "127.0.0.1.evil.example:5000"}, 403},
		{[]string{"Host", "localhost.evil.example"}, 403},
		{[]string{"Host", "10.0.0.1:5000"}, 403},
		{[]string{"Host", ""}, 403},
		{[]string{"Host", "localhost:5000", "Origin", "http://localhost:5000"}, 200},
		{[]string{"Host", "localhost:5000", "Origin", "http://localhost:3000"}, 403},
		{[]string{"Host", "localhost:5000", "Origin", "https://localhost:5000"}, 403},
		{[]string{"Host", "localhost:5000", "Origin", "http://localhost:5000/"}, 403},
		{[]string{"Host", "localhost:5000", "Origin", "https://evil.example"}, 403},
		{[]string{"Host", "localhost:5000", "Origin", "null"}, 403},
		{[]string{"Host", "localhost:5000", "Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Host", "localhost:5000", "Sec-Fetch-Site", "same-site"}, 403},
		{[]string{"Host", "localhost:5000", "Sec-Fetch-Site", "none"}, 200},
		{[]string{"Host", "localhost:5000", "Sec-Fetch-Site", "same-origin"}, 200},
	} {
		t.Run(fmt.Sprint(tt.header), func(t *testing.T) {
			f.T = t
			resp := f.want(f.do("GET", "/v2/", "", tt.header...), tt.status)
			if tt.status == 403 && f.codes(resp) != "DENIED" {
				t.Error("the code is another")
			}
			noCORS(t, resp)
		})
	}
}

func noCORS(t *testing.T, resp *http.Response) {
	t.Helper()
	for key := range resp.Header {
		if strings.HasPrefix(key, "Access-Control-") {
			t.Errorf("a CORS header was sent: %s", key)
		}
	}
}

// live is a server at an address, of which httptest.ResponseRecorder knows none.
type live struct {
	*fixture
	*httptest.Server
}

func listen(t *testing.T, network, address string, opts *server.Options) *live {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Skip(err) // no IPv6 here, for example
	}
	f := serve(t, opts)
	srv := httptest.NewUnstartedServer(f.handler)
	srv.Listener.Close()
	srv.Listener = listener
	t.Cleanup(srv.Close)
	return &live{f, srv}
}

func (l *live) port() string {
	_, port, _ := net.SplitHostPort(l.Listener.Addr().String())
	return port
}

// ask sends a request over the network; header is a list of keys and values, Host among them.
func (l *live) ask(method, path string, header ...string) *http.Response {
	l.Helper()
	req, err := http.NewRequestWithContext(l.Context(), method, l.URL+path, nil)
	if err != nil {
		l.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := l.Client().Do(req)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { resp.Body.Close() })
	return resp
}

// hosts asks under names, in which PORT is the listener's.
func (l *live) hosts(want map[string]int) {
	l.Helper()
	for host, status := range want {
		host = strings.ReplaceAll(host, "PORT", l.port())
		if got := l.ask("GET", "/v2/", "Host", host).StatusCode; got != status {
			l.Errorf("Host %s: status %d, want %d", host, got, status)
		}
	}
}

// A name of the loopback interface is the server's own only with the port that it listens at.
func TestHostsAndPorts(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0", &server.Options{Hosts: []string{"any.test", "One.test:5000", "[fd00::1]:5000", "localhost:8080", "10.1.1.1"}})
	l.Start()
	l.hosts(map[string]int{
		"localhost:PORT": 200, "127.0.0.1:PORT": 200, "127.9.9.9:PORT": 200, "[::1]:PORT": 200, "a.localhost:PORT": 200, "LOCALHOST.:PORT": 200,
		"localhost": 403, "localhost:80": 403, "127.0.0.1:1": 403, "localhost:443": 403, "localhost:0PORT": 403,
		"localhost:8080": 200, "127.0.0.1:8080": 403,
		"any.test": 200, "any.test:1": 200, "ANY.test.:2": 200, "sub.any.test": 403,
		"one.test:5000": 200, "one.test:PORT": 403, "one.test": 403,
		"[fd00::1]:5000": 200, "[fd00:0:0::1]:5000": 200, "[fd00::1]:PORT": 403, "[fd00::2]:5000": 403,
		"10.1.1.1": 200, "10.1.1.2": 403, "evil.test:PORT": 403, "127.0.0.1.evil.test:PORT": 403,
	})
	// A request of HTTP/1.0 may have none.
	conn, err := net.Dial("tcp", l.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /v2/ HTTP/1.0\r\n\r\n")
	answer := make([]byte, 12)
	if _, err := conn.Read(answer); err != nil || string(answer) != "HTTP/1.0 403" {
		t.Errorf("without a Host: %q, %v", answer, err)
	}
}

func TestHostsOfTLS(t *testing.T) {
	l := listen(t, "tcp", "127.0.0.1:0", &server.Options{Hosts: []string{"registry.test:443", "other.test:80"}})
	l.EnableHTTP2 = true
	l.StartTLS()
	l.hosts(map[string]int{"registry.test": 200, "registry.test:443": 200, "registry.test:80": 403, "other.test": 403, "other.test:80": 200, "localhost:PORT": 200, "localhost": 403})
	if resp := l.ask("GET", "/v2/"); resp.ProtoMajor != 2 || resp.StatusCode != 200 {
		t.Errorf("%s %s", resp.Proto, resp.Status)
	}
	for origin, status := range map[string]int{"https": 200, "http": 403} {
		if got := l.ask("GET", "/v2/", "Origin", origin+"://"+l.Listener.Addr().String()).StatusCode; got != status {
			t.Errorf("Origin %s: status %d", origin, got)
		}
	}
}

// The address at which a client has come is a name of the server, and no other address is.
func TestHostIsTheAddressItself(t *testing.T) {
	l := listen(t, "tcp", ":0", nil)
	l.Start()
	address := outward(t)
	l.URL = "http://" + net.JoinHostPort(address, l.port())
	l.hosts(map[string]int{net.JoinHostPort(address, "PORT"): 200, "localhost:PORT": 200, address: 403, "203.0.113.7:PORT": 403, "evil.test:PORT": 403})
	l.URL = "http://127.0.0.1:" + l.port()
	l.hosts(map[string]int{net.JoinHostPort(address, "PORT"): 403, "127.0.0.1:PORT": 200})
}

// outward is an IPv4 address of this machine beyond the loopback interface.
func outward(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range all {
		if ip, ok := addr.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP.String()
		}
	}
	t.Skip("this machine has only the loopback interface")
	return ""
}

// At a Unix socket there is no port to compare.
func TestHostsOfASocket(t *testing.T) {
	l := listen(t, "unix", filepath.Join(t.TempDir(), "s"), nil)
	l.Start()
	l.URL = "http://localhost"
	path := l.Listener.Addr().String()
	l.Client().Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	l.hosts(map[string]int{"localhost": 200, "localhost:1234": 200, "evil.test": 403})
}

// What a browser asks before it lets a page of elsewhere ask is answered, but never with leave.
func TestPreflights(t *testing.T) {
	for name, opts := range map[string]*server.Options{"open": nil, "password": {Authorizer: people(t, "ada")}, "tokens": {Authorizer: issuer(t)}} {
		l := listen(t, "tcp", "127.0.0.1:0", opts)
		l.Start()
		for _, path := range []string{"/v2/", "/v2/x/manifests/v1", "/v2/x/blobs/uploads/", server.TokenPath} {
			for _, origin := range []string{"https://evil.test", "null", "http://localhost:" + l.port()} {
				resp := l.ask("OPTIONS", path, "Origin", origin, "Access-Control-Request-Method", "PUT", "Access-Control-Request-Headers", "authorization")
				noCORS(t, resp)
				if resp.StatusCode != 403 {
					t.Errorf("%s: %s from %s: status %d", name, path, origin, resp.StatusCode)
				}
			}
			noCORS(t, l.ask("OPTIONS", path))
		}
		// Two origins are as many as none that is ours.
		own := "http://" + l.Listener.Addr().String()
		if got := l.ask("OPTIONS", "/v2/", "Origin", own, "Origin", "https://evil.test").StatusCode; got != 403 {
			t.Errorf("two origins: status %d", got)
		}
	}
	f := serve(t, nil)
	f.want(f.do("OPTIONS", "/v2/", "", "Origin", "http://localhost:5000"), http.StatusMethodNotAllowed, "Allow", "GET, HEAD")
}

func TestOptionsSayWhatIsWrong(t *testing.T) {
	for _, good := range []string{"registry.test", "registry.test:5000", "[::1]", "[::1]:5000", "10.0.0.1", "localhost:80"} {
		if err := (&server.Options{Hosts: []string{good}}).Validate(); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", ":5000", "registry.test:", "http://registry.test", "registry.test/v2", "a b", "::1", "*", "*.test", "a:b", "u@host", "a:99999:1"} {
		err := (&server.Options{Hosts: []string{bad}}).Validate()
		if err == nil || !strings.Contains(err.Error(), "registry.example.com:5000") {
			t.Errorf("%q is taken for a host: %v", bad, err)
		}
	}
	err := (&server.Options{Policy: server.Policy{Deny: []string{"["}}}).Validate()
	if err == nil || !strings.Contains(err.Error(), `"["`) {
		t.Errorf("got %v", err)
	}
}
