package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/berthoci/berth/internal/smallfile"
)

const (
	// maxPEM bounds, in bytes, a file of certificates or a key.
	maxPEM = 1 << 20
	// maxPlainHosts bounds the hosts that are known to have no directory: a registry's redirects can name
	// any number of them.
	maxPlainHosts = 1024
)

// hostTransports is an [http.RoundTripper] that speaks TLS to each host by the host's own certificates,
// as Docker has them in certs.d: in a directory that is called as the host in its address is, "HOST:PORT"
// in lower case, or "HOST" for port 443, lie CAs that are believed besides those of the system (*.crt),
// and client certificates (*.cert) with their keys (*.key). A host with a directory has a transport of
// its own, so neither a token server nor a CDN is shown the certificate that is for the registry.
//
// The directory of a host is looked for with the first https request to it, in these, and the first one is
// taken: those that the caller names or, where none is named, /etc/docker/certs.d,
// ~/.config/docker/certs.d, /etc/containers/certs.d, ~/.config/containers/certs.d. Of these four, what may
// not be looked into counts as absent. A directory that was read is not read again.
//
// Errors of RoundTrip name the file that is wrong. After one, the next request reads the directory again.
type hostTransports struct {
	base *http.Transport // for hosts without a directory; the others are its clones
	dirs []string        // empty: the usual ones

	mu    sync.Mutex // mu guards the field below
	hosts map[string]*http.Transport
}

// newHostTransports returns a transport that is as base where a host has no directory in certDirs, which may
// be empty. It does no I/O.
func newHostTransports(base *http.Transport, certDirs []string) *hostTransports {
	return &hostTransports{base: base, dirs: certDirs, hosts: map[string]*http.Transport{}}
}

// RoundTrip sends a request to its host.
func (h *hostTransports) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil || req.URL.Scheme != "https" {
		return h.base.RoundTrip(req)
	}
	t, err := h.transport(req.URL)
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, fmt.Errorf("certificates of %s: %w", req.URL.Host, err)
	}
	return t.RoundTrip(req)
}

// CloseIdleConnections closes those of all hosts.
func (h *hostTransports) CloseIdleConnections() {
	h.base.CloseIdleConnections()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.hosts {
		t.CloseIdleConnections()
	}
}

// transport returns the one for an address. Where two requests are the first to a host, both read its
// directory, and one of what they make is used.
func (h *hostTransports) transport(u *url.URL) (*http.Transport, error) {
	names := certDirNames(u)
	h.mu.Lock()
	known := h.hosts[names[0]]
	h.mu.Unlock()
	if known != nil {
		return known, nil
	}
	made, err := h.make(names)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if known := h.hosts[names[0]]; known != nil {
		return known, nil
	}
	if len(h.hosts) >= maxPlainHosts {
		maps.DeleteFunc(h.hosts, func(_ string, t *http.Transport) bool { return t == h.base })
	}
	h.hosts[names[0]] = made
	return made, nil
}

// certDirNames returns what the directory of a host may be called. The first is the same for all
// addresses that are one.
func certDirNames(u *url.URL) []string {
	host := strings.ToLower(u.Host)
	switch port := u.Port(); port {
	case "", "443":
		host = strings.TrimSuffix(strings.TrimSuffix(host, port), ":")
		return []string{host, host + ":443"}
	}
	return []string{host}
}

func (h *hostTransports) make(names []string) (*http.Transport, error) {
	dir, err := h.find(names)
	if err != nil || dir == "" {
		return h.base, err
	}
	config, err := readCertDir(dir, h.base.TLSClientConfig)
	if err != nil {
		return nil, err
	}
	t := h.base.Clone()
	t.TLSClientConfig = config
	return t, nil
}

// find returns the directory of a host; "" where it has none.
func (h *hostTransports) find(names []string) (string, error) {
	dirs := h.dirs
	if len(dirs) == 0 {
		dirs = usualCertDirs()
	}
	for _, dir := range dirs {
		for _, name := range names {
			if !isFileName(name) {
				continue
			}
			path := filepath.Join(dir, onDisk(name))
			if found, err := isDir(path, len(h.dirs) == 0); found || err != nil {
				return path, err
			}
		}
	}
	return "", nil
}

// isDir reports whether path is a directory. What may not be looked into is an error, or absent.
func isDir(path string, forbiddenIsAbsent bool) (bool, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.IsDir():
		return false, fmt.Errorf("%s is no directory", path)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR),
		forbiddenIsAbsent && errors.Is(err, fs.ErrPermission):
		return false, nil
	}
	return err == nil, err // which names the path
}

// isFileName reports whether a host is good for the name of a directory: hosts come from registries, too.
func isFileName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\\\x00")
}

func usualCertDirs() []string {
	dirs := []string{"/etc/docker/certs.d", "/etc/containers/certs.d"}
	if home, err := os.UserHomeDir(); err == nil {
		config := filepath.Join(home, ".config")
		dirs = []string{dirs[0], filepath.Join(config, "docker", "certs.d"), dirs[1], filepath.Join(config, "containers", "certs.d")}
	}
	return dirs
}

// readCertDir returns a copy of config, which may be nil, with what the directory adds.
func readCertDir(dir string, config *tls.Config) (*tls.Config, error) {
	if config = config.Clone(); config == nil {
		config = &tls.Config{}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(path) {
		case ".crt":
			err = addCA(config, path)
		case ".cert":
			err = addPair(config, path, strings.TrimSuffix(path, ".cert")+".key")
		case ".key":
			if _, missing := os.Stat(strings.TrimSuffix(path, ".key") + ".cert"); missing != nil {
				err = fmt.Errorf("%s has no certificate beside it: %w", path, missing)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return config, nil
}

// addCA has config believe the certificates in a file, besides those that it believes already.
func addCA(config *tls.Config, path string) error {
	raw, err := smallfile.Read(path, maxPEM)
	if err != nil {
		return err
	}
	if config.RootCAs == nil {
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			return err
		}
	} else {
		config.RootCAs = config.RootCAs.Clone()
	}
	if !config.RootCAs.AppendCertsFromPEM(raw) {
		return fmt.Errorf("%s has no certificate in it, as PEM", path)
	}
	return nil
}

// addPair has config show a client certificate to those who ask for one.
func addPair(config *tls.Config, certPath, keyPath string) error {
	cert, err := smallfile.Read(certPath, maxPEM)
	if err != nil {
		return err
	}
	key, err := smallfile.Read(keyPath, maxPEM)
	if err != nil {
		return fmt.Errorf("%s has no key beside it: %w", certPath, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("%s and its key: %w", certPath, err)
	}
	config.Certificates = append(config.Certificates[:len(config.Certificates):len(config.Certificates)], pair)
	return nil
}

// onDisk is what a directory is called where colons may not be in names, as Docker has it.
func onDisk(name string) string {
	if runtime.GOOS == "windows" {
		return strings.ReplaceAll(name, ":", "")
	}
	return name
}
