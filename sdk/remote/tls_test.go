package remote

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthoci/berth/sdk/remote/auth"
)

// canaryKey is in each file with a private key.
const canaryKey = "canary.key"

// authority is a private CA.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "private CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.pem, a.key = sign(t, template, nil, nil)
	block, _ := pem.Decode(a.pem)
	var err error
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return a
}

// issue makes a certificate for 127.0.0.1 that is good for both sides.
func (a *authority) issue(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, private := sign(t, template, a.cert, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"Comment": canaryKey}, Bytes: der})
}

// sign signs with the parent's key, or with its own.
func sign(t *testing.T, template, parent *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent, by = template, own
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &own.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), own
}

// tlsServer is a server of the CA's that asks for client certificates, and keeps the names of those that it
// is shown.
type tlsServer struct {
	*httptest.Server
	mu    sync.Mutex // mu guards the field below
	shown []string
}

func (a *authority) serve(t *testing.T, clients tls.ClientAuthType, h http.HandlerFunc) *tlsServer {
	t.Helper()
	s := &tlsServer{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := ""
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		s.mu.Lock()
		s.shown = append(s.shown, name)
		s.mu.Unlock()
		h(w, r)
	}))
	cert, key := a.issue(t, "server")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: clients, ClientCAs: pool}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = muted()
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *tlsServer) host() string { return s.Listener.Addr().String() }

func (s *tlsServer) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.shown)
}

func hello(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }

// lay writes files into a directory, by their names.
func lay(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// hostTransportsOf are those of directories, which end with the test.
func hostTransportsOf(t *testing.T, dirs ...string) *hostTransports {
	h := newHostTransports(newTransport(), dirs)
	t.Cleanup(h.CloseIdleConnections)
	return h
}

func fetch(t *testing.T, rt http.RoundTripper, address string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: rt}).Do(req)
	if err == nil {
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	return resp, err
}

func TestCase24APrivateCAAndAClientCertificate(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	srv := ca.serve(t, tls.RequireAndVerifyClientCert, hello)
	h := hostTransportsOf(t, dir)
	if _, err := fetch(t, h, srv.URL); err == nil {
		t.Error("a CA that nobody knows is believed")
	}

	cert, key := ca.issue(t, "client of one")
	lay(t, filepath.Join(dir, srv.host()), map[string][]byte{"ca.crt": ca.pem, "client.cert": cert, "client.key": key, "README": []byte("x")})
	h = hostTransportsOf(t, dir)
	for range 2 {
		resp, err := fetch(t, h, srv.URL)
		if err != nil || resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
			t.Fatalf("got %+v, %v", resp, err)
		}
	}
	if got := srv.names(); fmt.Sprint(got) != "[client of one client of one]" {
		t.Errorf("shown %q", got)
	}
}

// Whoever a registry leads to, by a redirect or a realm, is not shown the certificate that is for the registry.
func TestCase24NobodyElseGetsTheClientCertificate(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	cdn := ca.serve(t, tls.RequestClientCert, hello)
	realm := ca.serve(t, tls.RequestClientCert, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"token":"t"}`) })
	registry := ca.serve(t, tls.RequireAndVerifyClientCert, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm.URL+`"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, cdn.URL, http.StatusTemporaryRedirect)
	})
	cert, key := ca.issue(t, "client")
	lay(t, filepath.Join(dir, registry.host()), map[string][]byte{"ca.crt": ca.pem, "c.cert": cert, "c.key": key})
	for _, other := range []*tlsServer{cdn, realm} {
		lay(t, filepath.Join(dir, other.host()), map[string][]byte{"ca.crt": ca.pem})
	}
	rt := &auth.Transport{Base: hostTransportsOf(t, dir)}
	resp, err := fetch(t, rt, registry.URL)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %+v, %v", resp, err)
	}
	for name, s := range map[string]*tlsServer{"the CDN": cdn, "the token server": realm} {
		if got := s.names(); fmt.Sprint(got) != "[]" || len(got) != 1 {
			t.Errorf("%s was shown %q", name, got)
		}
	}
	if got := registry.names(); fmt.Sprint(got) != "[client client]" {
		t.Errorf("the registry was shown %q", got)
	}
}

func TestCase24TheFirstDirectoryOfAHostIsTaken(t *testing.T) {
	home, given, other := t.TempDir(), t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	usual := filepath.Join(home, ".config", "docker", "certs.d")
	for _, at := range []string{
		filepath.Join(given, "both:5000"), filepath.Join(other, "both:5000"), filepath.Join(other, "later:5000"),
		filepath.Join(given, "plain"), filepath.Join(given, "ported:443"), filepath.Join(given, "[::1]:5000"),
		filepath.Join(usual, "usual.test"), filepath.Join(home, ".config", "containers", "certs.d", "podman.test"),
	} {
		lay(t, at, nil)
	}
	tests := []struct {
		address string
		dirs    []string
		want    string
	}{
		{"https://both:5000", []string{given, other}, filepath.Join(given, "both:5000")},
		{"https://both:5000", []string{other, given}, filepath.Join(other, "both:5000")},
		{"https://BOTH:5000/v2/", []string{given}, filepath.Join(given, "both:5000")},
		{"https://later:5000", []string{given, other}, filepath.Join(other, "later:5000")},
		{"https://both", []string{given, other}, ""},
		{"https://both:5001", []string{given, other}, ""},
		{"https://plain", []string{given}, filepath.Join(given, "plain")},
		{"https://plain:443", []string{given}, filepath.Join(given, "plain")},
		{"https://ported", []string{given}, filepath.Join(given, "ported:443")},
		{"https://[::1]:5000", []string{given}, filepath.Join(given, "[::1]:5000")},
		{"https://usual.test", nil, filepath.Join(usual, "usual.test")},
		{"https://podman.test", nil, filepath.Join(home, ".config", "containers", "certs.d", "podman.test")},
		{"https://usual.test", []string{given}, ""},
		{"https://both:5000", []string{filepath.Join(given, "none"), filepath.Join(other, "both:5000", "none")}, ""},
	}
	for _, tt := range tests {
		u, err := url.Parse(tt.address)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := hostTransportsOf(t, tt.dirs...).find(certDirNames(u)); got != tt.want || err != nil {
			t.Errorf("%s in %q: got %q, %v, want %q", tt.address, tt.dirs, got, err, tt.want)
		}
	}
}

func TestCase24NoHostLeadsElsewhereOnTheDisk(t *testing.T) {
	dir := t.TempDir()
	lay(t, filepath.Join(dir, "certs.d", "a", "b"), nil)
	for _, host := range []string{"", ".", "..", "../certs.d", "a/b", `a\b`, "[fe80::1%../a]"} {
		h := hostTransportsOf(t, filepath.Join(dir, "certs.d"))
		if got, err := h.find([]string{host}); got != "" || err != nil {
			t.Errorf("%q leads to %q, %v", host, got, err)
		}
	}
}

func TestCase24AWrongFileIsNamed(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t, "client")
	_, otherKey := ca.issue(t, "other")
	tests := map[string]struct {
		files map[string][]byte
		names string
	}{
		"a CA that is none":           {map[string][]byte{"ca.crt": []byte("x")}, "ca.crt"},
		"a certificate that is none":  {map[string][]byte{"c.cert": []byte("x"), "c.key": key}, "c.cert"},
		"a certificate without a key": {map[string][]byte{"c.cert": cert}, "c.cert"},
		"a key without a certificate": {map[string][]byte{"c.key": key}, "c.key"},
		"a key that is none":          {map[string][]byte{"c.cert": cert, "c.key": []byte(canaryKey)}, "c.cert"},
		"the key of another one":      {map[string][]byte{"c.cert": cert, "c.key": otherKey}, "c.cert"},
		"more than a certificate has": {map[string][]byte{"ca.crt": bytes.Repeat([]byte("x"), maxPEM+1)}, "ca.crt"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			lay(t, filepath.Join(dir, "registry.test"), tt.files)
			h := hostTransportsOf(t, dir)
			_, err := fetch(t, h, "https://registry.test/v2/")
			if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "registry.test", tt.names)) || !strings.Contains(err.Error(), "registry.test: ") {
				t.Errorf("error is %v", err)
			}
			if err != nil && (strings.Contains(err.Error(), "PRIVATE") || strings.Contains(err.Error(), canaryKey)) {
				t.Errorf("%v tells a key", err)
			}
		})
	}
	t.Run("a file in its place", func(t *testing.T) {
		dir := t.TempDir()
		lay(t, dir, map[string][]byte{"registry.test": nil})
		if _, err := fetch(t, hostTransportsOf(t, dir), "https://registry.test/"); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("error is %v", err)
		}
	})
}

func TestCase24ADirectoryIsReadWithTheFirstRequest(t *testing.T) {
	ca, dir := newAuthority(t), t.TempDir()
	srv := ca.serve(t, tls.NoClientCert, hello)
	h := hostTransportsOf(t, filepath.Join(dir, "certs.d"))
	at := filepath.Join(dir, "certs.d", srv.host())
	lay(t, at, map[string][]byte{"ca.crt": []byte("not yet")})
	if _, err := fetch(t, h, srv.URL); err == nil {
		t.Error("no error")
	}
	lay(t, at, map[string][]byte{"ca.crt": ca.pem})
	if _, err := fetch(t, h, srv.URL); err != nil {
		t.Errorf("after it was mended: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	h.CloseIdleConnections()
	if _, err := fetch(t, h, srv.URL); err != nil {
		t.Errorf("it was read again: %v", err)
	}
}

func TestCase24HostsWithoutADirectoryAreForgottenAtABound(t *testing.T) {
	h := hostTransportsOf(t, t.TempDir())
	for i := range 2*maxPlainHosts + 10 {
		if got, err := h.transport(&url.URL{Scheme: "https", Host: fmt.Sprint("h", i)}); got != h.base || err != nil {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	if len(h.hosts) > maxPlainHosts {
		t.Errorf("%d are known", len(h.hosts))
	}
}

// Go reads the proxy variables once in a process, so another one tells where it would connect to.
func TestCase24ProxyVariables(t *testing.T) {
	if os.Getenv("BERTH_TEST_DIALS") != "" {
		tellDials(t)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestCase24ProxyVariables$", "-test.v")
	cmd.Env = append(os.Environ(), "BERTH_TEST_DIALS=1", "HTTP_PROXY=http://plain.proxy.test:3128",
		"HTTPS_PROXY=http://tls.proxy.test:3129", "NO_PROXY=.inside.test,10.0.0.0/8", "http_proxy=", "https_proxy=", "no_proxy=", "REQUEST_METHOD=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for address, want := range map[string]string{
		"http://registry.test:5000":        "plain.proxy.test:3128",
		"https://registry.test":            "tls.proxy.test:3129",
		"https://own.test":                 "tls.proxy.test:3129",
		"https://registry.inside.test":     "registry.inside.test:443",
		"https://10.1.2.3:5000":            "10.1.2.3:5000",
		"http://127.0.0.1:5000":            "127.0.0.1:5000",
		"http://registry.inside.test:5000": "registry.inside.test:5000",
	} {
		if line := "dial " + address + " " + want + "\n"; !strings.Contains(string(out), line) {
			t.Errorf("no %q in\n%s", line, out)
		}
	}
}

func tellDials(t *testing.T) {
	base := newTransport()
	var last string
	base.DialContext = func(_ context.Context, _, addr string) (net.Conn, error) {
		last = addr
		return nil, net.ErrClosed
	}
	dir := t.TempDir()
	lay(t, filepath.Join(dir, "own.test"), map[string][]byte{"ca.crt": newAuthority(t).pem})
	h := newHostTransports(base, []string{dir})
	for _, address := range []string{
		"http://registry.test:5000", "https://registry.test", "https://own.test", "https://registry.inside.test",
		"https://10.1.2.3:5000", "http://127.0.0.1:5000", "http://registry.inside.test:5000",
	} {
		if _, err := fetch(t, h, address); err == nil {
			t.Error("connected")
		}
		fmt.Println("dial", address, last)
	}
}

// quiet is a log that nobody reads: what is refused on purpose is no news.
func muted() *log.Logger { return log.New(io.Discard, "", 0) }
