//go:build linux

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/berthoci/berth/internal/canary"
)

const (
	// owner may do everything below app, and reader look at it.
	owner, ownerPassword   = "olga", canary.Mark + "correct-horse-Battery9"
	reader, readerPassword = "rita", canary.Mark + "correct-horse-Battery8"
)

const accessRules = `rules:
  - users: [olga]
    repositories: ["app/**", "public/**"]
    actions: [pull, push, delete]
    catalog: true
  - users: [rita]
    repositories: ["app/**"]
    actions: [pull]
  - users: [rita]
    repositories: ["rita/*"]
    actions: [pull, push]
  - anonymous: true
    repositories: ["public/*"]
    actions: [pull]
`

// accessFlags writes who may do what, and returns the flags with which berth serve reads it.
func (s *shell) accessFlags() []string {
	s.Helper()
	var users strings.Builder
	for name, password := range map[string]string{owner: ownerPassword, reader: readerPassword} {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		s.check(err)
		fmt.Fprintf(&users, "%s:%s\n", name, hash)
	}
	s.write(s.path("access", "users"), users.String())
	s.write(s.path("access", "rules.yaml"), accessRules)
	return []string{"--htpasswd", s.path("access", "users"), "--access", s.path("access", "rules.yaml")}
}

// own is the shell of somebody with credentials of his own, where all programs find them; none at first.
func (s *shell) own(name string) *shell {
	s.Helper()
	file := s.path("docker-"+name, "config.json")
	s.write(file, "{}")
	return s.with("DOCKER_CONFIG="+filepath.Dir(file), "REGISTRY_AUTH_FILE="+file)
}

// refused runs a program that has to fail, and to tell why, and no password.
func (s *shell) refused(says, name string, args ...string) {
	s.Helper()
	out := s.run(name, args...)
	told := strings.ToLower(out.stdout + out.stderr)
	if out.code == 0 || !regexp.MustCompile(says).MatchString(told) {
		s.Errorf("%s %s: exit code %d, want it to say %s:\n%s", name, strings.Join(args, " "), out.code, says, told)
	}
	if strings.Contains(told, strings.ToLower(ownerPassword)) || strings.Contains(told, strings.ToLower(readerPassword)) {
		s.Errorf("%s tells a password", name)
	}
}

// Programs that know nothing of berth log in, and may do what the rules say: in plain http.
func TestProgramsGetTokens(t *testing.T) {
	s := newShell(t)
	image := s.smallImage(s.path("made"), "v1", 2)
	p, address := s.serve(s.path("layout"), s.accessFlags()...)
	olga, rita, nobody := s.own(owner), s.own(reader), s.own("nobody")
	olga.must("skopeo", "login", "--tls-verify=false", "-u", owner, "-p", ownerPassword, address)
	rita.must("crane", "auth", "login", address, "-u", reader, "-p", readerPassword)
	nobody.refused("unauthorized|invalid username/password", "skopeo", "login", "--tls-verify=false", "-u", owner, "-p", readerPassword, address)

	hello := address + "/app/hello:v1"
	olga.must("skopeo", "copy", "--dest-tls-verify=false", "oci:"+s.path("made"), "docker://"+hello)
	for who, shell := range map[string]*shell{owner: olga, reader: rita} {
		if got := shell.must("crane", "digest", hello); got != string(image.root) {
			t.Errorf("%s sees %s, want %s", who, got, image.root)
		}
		shell.must("skopeo", "copy", "--src-tls-verify=false", "docker://"+hello, "oci:"+s.path("pulled-"+who)+":v1")
		s.sameBlobs(s.path("made"), s.path("pulled-"+who))
		if got := shell.must("berth", "resolve", hello); !strings.Contains(got, string(image.root)) {
			t.Errorf("%s resolves to %s", who, got)
		}
	}
	rita.refused("denied|403", "skopeo", "copy", "--dest-tls-verify=false", "oci:"+s.path("made"), "docker://"+address+"/app/hello:v2")
	rita.refused("denied|403", "crane", "tag", hello, "v2")
	rita.refused("denied|403", "crane", "delete", address+"/app/hello@"+string(image.root))
	rita.refused("denied|403", "crane", "catalog", address)
	nobody.refused("unauthorized|authentication required", "crane", "digest", hello)
	nobody.refused("unauthorized|authentication required", "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+hello)

	if got := olga.must("crane", "catalog", address); got != "app/hello" {
		t.Errorf("the catalog is %q", got)
	}
	olga.must("crane", "copy", hello, address+"/public/hello:v1")
	nobody.must("crane", "pull", "--format", "oci", address+"/public/hello:v1", s.path("public"))
	rita.must("crane", "copy", hello, address+"/rita/copy:v1")
	olga.must("skopeo", "delete", "--tls-verify=false", "docker://"+hello)
	olga.refused("manifest_unknown|not found|unknown", "crane", "digest", hello)
	p.stop()
	for _, secret := range []string{ownerPassword, readerPassword, "Bearer "} {
		if strings.Contains(p.stderr.String()+p.stdout.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}

// regctl asks for its tokens in a way of its own.
func TestRegctlGetsTokens(t *testing.T) {
	s := newShell(t)
	image := s.smallImage(s.path("made"), "v1", 1)
	_, address := s.serve(s.path("layout"), s.accessFlags()...)
	s.must("regctl", "registry", "set", "--tls", "disabled", address)
	s.must("regctl", "registry", "login", address, "-u", owner, "-p", ownerPassword)
	s.must("regctl", "image", "copy", "ocidir://"+s.path("made")+":v1", address+"/app/hello:v1")
	if got := s.must("regctl", "image", "digest", address+"/app/hello:v1"); got != string(image.root) {
		t.Errorf("regctl sees %s, want %s", got, image.root)
	}
	s.must("regctl", "image", "copy", address+"/app/hello:v1", address+"/app/copy:v1")
	s.refused("denied|unauthorized|403|401", "regctl", "image", "copy", address+"/app/hello:v1", address+"/other/copy:v1")
}

// authority is a certificate authority of one certificate.
type authority struct {
	certDir, caFile   string // certDir as skopeo takes it, with the file in it
	certFile, keyFile string // of the server
}

func (s *shell) authority() authority {
	s.Helper()
	dir := s.path("tls")
	a := authority{certDir: filepath.Join(dir, "certs"), caFile: filepath.Join(dir, "certs", "ca.crt"),
		certFile: filepath.Join(dir, "server.pem"), keyFile: filepath.Join(dir, "server.key")}
	end := time.Now().Add(time.Hour)
	caKey := s.key()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"}, NotAfter: end, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	key := s.key()
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "berth"}, NotAfter: end,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	s.writePEM(a.caFile, "CERTIFICATE", s.signed(ca, ca, caKey, caKey))
	s.writePEM(a.certFile, "CERTIFICATE", s.signed(leaf, ca, key, caKey))
	private, err := x509.MarshalPKCS8PrivateKey(key)
	s.check(err)
	s.writePEM(a.keyFile, "PRIVATE KEY", private)
	return a
}

func (s *shell) key() *ecdsa.PrivateKey {
	s.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.check(err)
	return key
}

func (s *shell) signed(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) []byte {
	s.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	s.check(err)
	return der
}

// writePEM writes a certificate, or a key, which is marked as a secret.
func (s *shell) writePEM(path, kind string, der []byte) {
	s.Helper()
	headers := map[string]string{}
	if kind == "PRIVATE KEY" {
		headers["Comment"] = canary.Mark + "key"
	}
	s.write(path, string(pem.EncodeToMemory(&pem.Block{Type: kind, Headers: headers, Bytes: der})))
}

var servingTLSLine = regexp.MustCompile(`(?m)^serving .* at https://(\S+)$`)

// At an address that others can reach, with TLS and tokens.
func TestProgramsSpeakTLS(t *testing.T) {
	s := newShell(t)
	image := s.smallImage(s.path("made"), "v1", 2)
	a := s.authority()
	flags := append([]string{"serve", "--layout", s.path("layout"), "--addr", ":0", "--tls-cert", a.certFile, "--tls-key", a.keyFile}, s.accessFlags()...)
	p := s.start("berth", flags...)
	_, port, err := net.SplitHostPort(p.await(&p.stdout, servingTLSLine))
	s.check(err)
	address := "127.0.0.1:" + port
	olga := s.own(owner).with("SSL_CERT_FILE=" + a.caFile)
	olga.must("skopeo", "login", "--cert-dir", a.certDir, "-u", owner, "-p", ownerPassword, address)
	olga.must("skopeo", "copy", "--dest-cert-dir", a.certDir, "oci:"+s.path("made"), "docker://"+address+"/app/hello:v1")
	rita := s.own(reader).with("SSL_CERT_FILE=" + a.caFile)
	rita.must("skopeo", "login", "--cert-dir", a.certDir, "-u", reader, "-p", readerPassword, address)
	rita.must("skopeo", "copy", "--src-cert-dir", a.certDir, "docker://"+address+"/app/hello:v1", "oci:"+s.path("pulled")+":v1")
	s.sameBlobs(s.path("made"), s.path("pulled"))
	rita.refused("denied", "skopeo", "copy", "--dest-cert-dir", a.certDir, "oci:"+s.path("made"), "docker://"+address+"/app/other:v1")
	if got := rita.must("crane", "digest", address+"/app/hello:v1"); got != string(image.root) {
		t.Errorf("crane sees %s, want %s", got, image.root)
	}
	s.own("nobody").refused("certificate", "skopeo", "inspect", "docker://"+address+"/app/hello:v1")

	olga.must("berth", "push", "--layout", s.path("second"), "oci:"+s.path("made"), "app/synced:v1")
	olga.must("berth", "sync", "--layout", s.path("second"), "--to", "https://"+address, "app/synced:v1")
	rita.refused("denied", "berth", "sync", "--layout", s.path("second"), "--to", "https://"+address+"/more", "app/synced:v1")
	p.stop()
}
