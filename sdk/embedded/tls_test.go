package embedded_test

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
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/sdk/embedded"
)

// certified writes a new certificate for this machine, and its key, and returns it and the files.
func certified(t *testing.T, dir string) (cert *x509.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fatal(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	fatal(t, err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "berth test"}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	fatal(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	fatal(t, err)
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	fatal(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	fatal(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	cert, err = x509.ParseCertificate(der)
	fatal(t, err)
	return cert, certFile, keyFile
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serveTLS serves a new layout in https until the test ends, and returns the address.
func serveTLS(t *testing.T, opts embedded.ServeOptions) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	address, result := make(chan string, 1), make(chan error, 1)
	opts.Layout, opts.Ready = filepath.Join(t.TempDir(), "layout"), func(at plugin.Endpoint) { address <- at.Address }
	go func() { result <- embedded.Serve(ctx, opts) }()
	select {
	case err := <-result:
		cancel()
		t.Fatal(err)
	case at := <-address:
		t.Cleanup(func() {
			cancel()
			if err := <-result; err != nil {
				t.Error(err)
			}
		})
		return at
	}
	return ""
}

func client(t *testing.T, cert *x509.Certificate, config *tls.Config) *http.Client {
	t.Helper()
	config.RootCAs = x509.NewCertPool()
	config.RootCAs.AddCert(cert)
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestServeTLS(t *testing.T) {
	cert, certFile, keyFile := certified(t, t.TempDir())
	address := serveTLS(t, embedded.ServeOptions{Listen: plugin.ListenOptions{Address: "127.0.0.1:0", CertFile: certFile, KeyFile: keyFile}})
	resp, err := client(t, cert, &tls.Config{}).Get("https://" + address + "/v2/")
	fatal(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 || resp.TLS.Version != tls.VersionTLS13 {
		t.Errorf("%s %s", resp.Proto, resp.Status)
	}
	for version, good := range map[uint16]bool{tls.VersionTLS12: true, tls.VersionTLS11: false} {
		resp, err := client(t, cert, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: version}).Get("https://" + address + "/v2/")
		if (err == nil) != good {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			resp.Body.Close()
		}
	}
	plain, err := http.Get("http://" + address + "/v2/")
	fatal(t, err)
	plain.Body.Close()
	if plain.StatusCode != http.StatusBadRequest {
		t.Errorf("plain http: %s", plain.Status)
	}
}

// said gathers what is logged.
type said struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), what)
}

// A certificate that is renewed is served from then on; one that is broken is not.
func TestACertificateIsRenewed(t *testing.T) {
	dir, log := t.TempDir(), &said{}
	first, certFile, keyFile := certified(t, dir)
	address := serveTLS(t, embedded.ServeOptions{
		Listen: plugin.ListenOptions{Address: "127.0.0.1:0", CertFile: certFile, KeyFile: keyFile},
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if got := shown(t, address); got.Cmp(first.SerialNumber) != 0 {
		t.Fatal("it shows another certificate")
	}
	fatal(t, os.WriteFile(certFile, []byte("half a certif"), 0o600))
	until(t, func() bool {
		if got := shown(t, address); got.Cmp(first.SerialNumber) != 0 {
			t.Fatal("it shows another certificate")
		}
		return log.count("is no good") > 0
	})
	fatal(t, os.Remove(keyFile))
	until(t, func() bool { shown(t, address); return log.count("is no good") > 1 })
	second, _, _ := certified(t, dir)
	until(t, func() bool { return shown(t, address).Cmp(second.SerialNumber) == 0 })
	if log.count("PRIVATE") != 0 {
		t.Error("the log has the key")
	}
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatal("it did not come about")
}

// shown is the serial number of the certificate that a server shows now.
func shown(t *testing.T, address string) *big.Int {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	fatal(t, err)
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber
}

func TestCertificatesThatAreNotServed(t *testing.T) {
	dir := t.TempDir()
	_, certFile, keyFile := certified(t, dir)
	_, _, otherKey := certified(t, t.TempDir())
	nonsense := filepath.Join(dir, "nonsense.pem")
	fatal(t, os.WriteFile(nonsense, []byte("nonsense"), 0o600))
	for name, files := range map[string][2]string{
		"go together": {certFile, ""}, "both": {"", keyFile}, "absent": {filepath.Join(dir, "absent"), keyFile},
		"nonsense.pem": {nonsense, keyFile}, "does not match": {certFile, otherKey},
	} {
		layout := filepath.Join(t.TempDir(), "layout")
		err := embedded.Serve(t.Context(), embedded.ServeOptions{
			Layout: layout, Listen: plugin.ListenOptions{Address: "127.0.0.1:0", CertFile: files[0], KeyFile: files[1]},
		})
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := os.Stat(layout); err == nil {
			t.Errorf("%s: the layout was made", name)
		}
	}
}

func TestAddressesBeyondLoopback(t *testing.T) {
	for _, tt := range []struct {
		guard embedded.Guard
		says  string
	}{
		{embedded.Guard{}, "for others add --tls-cert and --tls-key, and --htpasswd or --access"},
		{embedded.Guard{TLS: true}, "for others add --htpasswd or --access"},
		{embedded.Guard{Auth: true}, "for others add --tls-cert and --tls-key"},
		{embedded.Guard{TLS: true, Auth: true}, ""},
	} {
		for _, address := range []string{"0.0.0.0:0", ":443", "[::]:5000", "10.0.0.1:5000", "registry.example.com:443"} {
			err := embedded.CheckAddress(address, tt.guard)
			if (err == nil) != (tt.says == "") || err != nil && (!errors.Is(err, berth.ErrDenied) || !strings.HasSuffix(err.Error(), tt.says)) {
				t.Errorf("%s with %+v: got %v", address, tt.guard, err)
			}
		}
		for address, good := range map[string]bool{"127.0.0.1:0": true, "localhost:80": true, "[::1]:1": true, "nowhere": false, "10.0.0.1:-1": false} {
			if err := embedded.CheckAddress(address, tt.guard); (err == nil) != good {
				t.Errorf("%s with %+v: got %v", address, tt.guard, err)
			}
		}
	}
}

// Beyond loopback there is TLS, and somebody who may ask is asked who it is.
func TestServeBeyondLoopback(t *testing.T) {
	cert, certFile, keyFile := certified(t, t.TempDir())
	address := serveTLS(t, embedded.ServeOptions{Listen: plugin.ListenOptions{
		Address: "0.0.0.0:0", CertFile: certFile, KeyFile: keyFile, Token: "canary.token", Hosts: []string{"registry.test"},
	}})
	_, port, err := net.SplitHostPort(address)
	fatal(t, err)
	for host, status := range map[string]int{"localhost:" + port: 401, "registry.test": 401, "127.0.0.1:" + port: 401, "0.0.0.0:" + port: 403, "evil.test": 403} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://127.0.0.1:"+port+"/v2/", nil)
		fatal(t, err)
		req.Host = host
		resp, err := client(t, cert, &tls.Config{}).Do(req)
		fatal(t, err)
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("%s: status %d, want %d", host, resp.StatusCode, status)
		}
	}
}

// An address that is a name is a name of the server, with its port.
func TestServeAtAName(t *testing.T) {
	name, err := os.Hostname()
	if err == nil {
		var listener net.Listener
		if listener, err = net.Listen("tcp", name+":0"); err == nil {
			listener.Close()
		}
	}
	if err != nil {
		t.Skip(err)
	}
	cert, certFile, keyFile := certified(t, t.TempDir())
	address := serveTLS(t, embedded.ServeOptions{Listen: plugin.ListenOptions{
		Address: name + ":0", CertFile: certFile, KeyFile: keyFile, Token: "canary.token",
	}})
	_, port, err := net.SplitHostPort(address)
	fatal(t, err)
	for host, status := range map[string]int{name + ":" + port: 401, name: 403, name + ":1": 403} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/v2/", nil)
		fatal(t, err)
		req.Host = host
		resp, err := client(t, cert, &tls.Config{InsecureSkipVerify: true}).Do(req)
		fatal(t, err)
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("%s: status %d, want %d", host, resp.StatusCode, status)
		}
	}
}

func TestServeTakesNoBadOptions(t *testing.T) {
	err := embedded.Serve(t.Context(), embedded.ServeOptions{Layout: t.TempDir(), Listen: plugin.ListenOptions{Address: "127.0.0.1:0", Hosts: []string{"a b"}}})
	if err == nil || !strings.Contains(err.Error(), `"a b"`) {
		t.Errorf("got %v", err)
	}
}
