//go:build linux

package e2e

import (
	"os"
	"path/filepath"
)

// place is a registry that images are brought to, over a link that counts what goes up.
type place struct {
	*breakable
	pusher, reader *shell // who runs berth, and who runs other clients
	scheme         string // of its address, as berth is told
	tls            string // as regctl is told
	wipe           string // what the registry keeps there is gone when this is; empty: that cannot be done while it runs
}

// places are the registries, each with a function that starts one and returns its address.
var places = []struct {
	name  string
	start func(*place) string
}{
	{"distribution with tokens", (*place).startWithTokens},
	{"distribution with passwords", (*place).startWithPasswords},
	{"distribution with a private CA", (*place).startWithCA},
	{"distribution of version 2", (*place).startOld},
	{"berth", (*place).startBerth},
	{"berth with rules", (*place).startWithRules},
}

func (s *shell) place(start func(*place) string) *place {
	s.Helper()
	p := &place{breakable: s.breakable("", 0), pusher: s, reader: s, scheme: "http", tls: "disabled"}
	p.leadTo(start(p))
	return p
}

// login has everybody logged in at the place.
func (p *place) login() {
	p.Helper()
	p.pusher = p.loggedIn(p.host(), password)
	p.reader = p.pusher
}

func (p *place) startWithTokens() string {
	p.Helper()
	p.login()
	p.wipe = p.registryData()
	tokens := p.tokenServer()
	tokens.grant("pull", "push", "delete")
	return p.registry(tokens.config())
}

func (p *place) startWithPasswords() string {
	p.Helper()
	p.login()
	p.wipe = p.registryData()
	return p.htpasswdRegistry()
}

// startWithCA tells berth of the CA in the directory of the host, and the others in the way that they have in common.
func (p *place) startWithCA() string {
	p.Helper()
	a := p.authority()
	p.believe(a)
	p.reader = p.with("SSL_CERT_FILE=" + a.caFile)
	p.scheme, p.tls, p.wipe = "https", "enabled", p.registryData()
	return p.tlsRegistry(a)
}

func (p *place) startOld() string {
	p.Helper()
	p.wipe = p.registryData()
	return p.registryOf(oldRegistry, "")
}

func (p *place) startBerth() string {
	p.Helper()
	_, address := p.shell.serve(p.path("target"), "--host", p.host())
	return address
}

func (p *place) startWithRules() string {
	p.Helper()
	p.pusher = p.own(owner)
	p.reader = p.pusher
	p.pusher.must("crane", "auth", "login", p.host(), "-u", owner, "-p", ownerPassword)
	_, address := p.shell.serve(p.path("target"), append(p.accessFlags(), "--host", p.host())...)
	return address
}

// tlsRegistry is one that speaks TLS.
func (s *shell) tlsRegistry(a authority) string {
	s.Helper()
	return s.with("REGISTRY_HTTP_TLS_CERTIFICATE="+a.certFile, "REGISTRY_HTTP_TLS_KEY="+a.keyFile).registry("")
}

// believe puts the certificate of an authority where Docker has it for this host alone.
func (l *breakable) believe(a authority) {
	l.Helper()
	dir := l.path(".config", "docker", "certs.d")
	l.check(os.MkdirAll(dir, 0o755))
	l.check(os.Symlink(a.certDir, filepath.Join(dir, l.host())))
}
