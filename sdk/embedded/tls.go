package embedded

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certCheckInterval is how long a certificate is used without a look at its files.
const certCheckInterval = time.Second

// certificates are a certificate and its key in two files, which are read again when they have changed: who
// renews them need not end the server. Nil is none.
type certificates struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex // guards the fields below
	current *tls.Certificate
	stamps  [2]stamp // of the files that were last read, whether they fitted or not
	looked  time.Time
}

// stamp tells one version of a file from the next.
type stamp struct {
	modified time.Time
	size     int64
}

// readCertificates reads a certificate and its key. None named is nil.
func readCertificates(certFile, keyFile string, log *slog.Logger) (*certificates, error) {
	if certFile == "" && keyFile == "" {
		return nil, nil
	}
	if certFile == "" || keyFile == "" {
		return nil, errors.New("a certificate and its key go together: name the files of both")
	}
	c := &certificates{certFile: certFile, keyFile: keyFile, log: log, looked: time.Now()}
	var err error
	if c.stamps, err = c.stat(); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return c, c.read()
}

// config is how https is served with them; nil, without.
func (c *certificates) config() *tls.Config {
	if c == nil {
		return nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
}

// get returns the certificate for a connection.
func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= certCheckInterval {
		c.looked = now
		c.refresh()
	}
	return c.current, nil
}

// refresh reads files that have changed; it tells of each change once. The caller holds mu.
func (c *certificates) refresh() {
	stamps, err := c.stat()
	if stamps == c.stamps {
		return
	}
	c.stamps = stamps
	if err == nil {
		err = c.read()
	}
	if err != nil {
		c.log.Warn("the certificate has changed and is no good; the one before is used on", "err", err)
	}
}

// read takes what is in the files now, if it fits.
func (c *certificates) read() error {
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	c.current = &cert
	return nil
}

// stat returns the stamps of both files, or of none.
func (c *certificates) stat() ([2]stamp, error) {
	cert, certErr := os.Stat(c.certFile)
	key, keyErr := os.Stat(c.keyFile)
	if err := cmp.Or(certErr, keyErr); err != nil {
		return [2]stamp{}, err
	}
	return [2]stamp{{cert.ModTime(), cert.Size()}, {key.ModTime(), key.Size()}}, nil
}
