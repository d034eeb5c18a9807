package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/server"
)

const loopback = "127.0.0.1:0"

// site is a view of a layout, at the addresses where it is served.
type site struct {
	endpoint plugin.Endpoint
	servers  []*httpServer
	serving  sync.WaitGroup
}

// open serves the layout as opts say.
func (c *controller) open(opts plugin.ListenOptions, access *slog.Logger) (*site, error) {
	view, certs, err := examine(&opts, c.log)
	if err != nil {
		return nil, err
	}
	view.Logger, view.AccessLog = c.log, access
	s := &site{endpoint: plugin.Endpoint{Token: opts.Token}}
	if err := c.bind(s, opts, view, certs); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// examine says what is wrong with options, before anything is opened, and completes them.
func examine(opts *plugin.ListenOptions, log *slog.Logger) (*server.Options, *certificates, error) {
	if opts.Address == "" {
		opts.Address = loopback
	}
	guard := Guard{TLS: opts.CertFile != "", Auth: len(opts.Token)+len(opts.Passwords)+len(opts.Rules) > 0}
	if err := CheckAddress(opts.Address, guard); err != nil {
		return nil, nil, fmt.Errorf("address %q: %w", opts.Address, err)
	}
	view, err := viewOf(*opts)
	if err != nil {
		return nil, nil, err
	}
	certs, err := readCertificates(opts.CertFile, opts.KeyFile, log)
	return view, certs, err
}

// bind listens at the address, and at a socket if that is wanted.
func (c *controller) bind(s *site, opts plugin.ListenOptions, view *server.Options, certs *certificates) error {
	listener, err := net.Listen("tcp", opts.Address)
	if err != nil {
		return inUse(opts.Address, err)
	}
	s.endpoint.Address = listener.Addr().String()
	view.Hosts = slices.Concat(view.Hosts, ownName(opts.Address, listener.Addr()))
	srv := newHTTPServer(c.layout, view)
	srv.std.TLSConfig = certs.config()
	s.serve(srv, listener)
	if opts.Socket == "" {
		return nil
	}
	if s.endpoint.Socket, err = socketPath(c.cfg.Layout, opts.Socket); err != nil {
		return err
	}
	socket, err := listenSocket(s.endpoint.Socket)
	if err != nil {
		return err
	}
	s.serve(newHTTPServer(c.layout, view), socket)
	return nil
}

func (s *site) serve(srv *httpServer, listener net.Listener) {
	s.servers = append(s.servers, srv)
	s.serving.Go(func() { srv.serve(listener) })
}

// close lets requests that are under way finish, for a while, at all addresses at once.
func (s *site) close() error {
	errs := make([]error, len(s.servers))
	var ending sync.WaitGroup
	for i, srv := range s.servers {
		ending.Go(func() { errs[i] = srv.shutdown() })
	}
	ending.Wait()
	s.serving.Wait()
	if s.endpoint.Socket != "" {
		errs = append(errs, removeSocket(s.endpoint.Socket))
	}
	return errors.Join(errs...)
}

// inUse tells what keeps an address from being listened at.
func inUse(address string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("address %s: %w; stop what listens there, or choose another --addr", address, plugin.ErrAddressInUse)
	}
	return fmt.Errorf("address %s: %w; choose another --addr", address, plainCause(err))
}

// viewOf is what a server is told of the options.
func viewOf(opts plugin.ListenOptions) (*server.Options, error) {
	view := &server.Options{
		Hosts:        opts.Hosts,
		Policy:       server.Policy{Allow: opts.AllowClasses, Deny: opts.DenyClasses},
		ReadOnly:     opts.ReadOnly,
		AllowMissing: opts.AllowMissing,
		Limits:       server.Limits{Requests: opts.MaxRequests, Uploads: opts.MaxUploads},
		MinChunk:     opts.MinChunk,
	}
	if err := view.Validate(); err != nil {
		return nil, err
	}
	var err error
	view.Authorizer, err = authorizer(opts)
	return view, err
}

// authorizer decides who may do what. Nil: everybody may do everything.
func authorizer(opts plugin.ListenOptions) (server.Authorizer, error) {
	var users *server.Passwords
	if len(opts.Passwords) > 0 {
		var err error
		if users, err = server.Htpasswd(bytes.NewReader(opts.Passwords)); err != nil {
			return nil, err
		}
	}
	switch {
	case len(opts.Rules) > 0:
		rules, err := server.ParseRules(bytes.NewReader(opts.Rules))
		if err != nil {
			return nil, err
		}
		if users == nil {
			return server.NewIssuer(rules, nil)
		}
		return server.NewIssuer(rules, users)
	case users != nil:
		return users, nil
	case opts.Token != "":
		return server.Token(opts.Token), nil
	}
	return nil, nil
}

const (
	socketPrefix = "http-"
	// maxSocketPath is how long the path of a socket may be on all systems, in bytes, with the zero at its end.
	maxSocketPath = 104
	maxSocketName = 32
	letters       = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// socketPath is where a Unix socket for HTTP lies: in the control directory, or, where that has too long a path
// for clients to name, in a directory of this user below the system's temporary one. The same id leads to the same
// path, also after a crash.
func socketPath(layout, id string) (string, error) {
	if len(id) > maxSocketName || strings.Trim(id, letters) != "" {
		return "", fmt.Errorf("socket name %.50q: want up to %d letters and digits", id, maxSocketName)
	}
	name := socketPrefix + id + ".sock"
	if path := filepath.Join(layout, control.Dir, name); len(path) < maxSocketPath {
		return path, nil
	}
	folder := os.TempDir()
	if len(folder) > maxSocketPath/2-maxSocketName {
		folder = "/tmp"
	}
	dir := filepath.Join(folder, fmt.Sprint("berth-", os.Getuid()))
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("socket for clients: %w", err)
	}
	return filepath.Join(dir, name), control.CheckPrivate(dir)
}

// listenSocket lets in who can reach the socket: this user and root. What a registry has left there that was killed
// is replaced.
func listenSocket(path string) (net.Listener, error) {
	err := removeSocket(path)
	var listener net.Listener
	if err == nil {
		listener, err = net.Listen("unix", path)
	}
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("socket for clients: %w", err)
	}
	return listener, nil
}

func removeSocket(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// sweepSockets removes what an owner has left that was killed.
func sweepSockets(layout string) {
	dir := filepath.Join(layout, control.Dir)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), socketPrefix) && e.Type() == os.ModeSocket {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
