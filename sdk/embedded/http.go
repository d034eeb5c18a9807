package embedded

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/server"
)

const (
	// drainTimeout is how long requests that are under way may take when their address closes.
	drainTimeout = 5 * time.Second
	// headerTimeout bounds how long a client may take to say what it wants.
	headerTimeout = 10 * time.Second
	// idleTimeout bounds how long a connection may rest between two requests.
	idleTimeout = 2 * time.Minute
)

// httpServer is an http.Server that ends at once when no request is under way. The standard one waits
// five seconds for connections that have asked nothing yet, and clients open such in reserve.
type httpServer struct {
	http.Server

	mu     sync.Mutex // guards the fields below
	silent map[net.Conn]bool
	ending bool
}

func newHTTPServer(registry berth.Registry, opts *server.Options) *httpServer {
	s := &httpServer{silent: map[net.Conn]bool{}}
	s.Server = http.Server{
		Handler:           server.New(registry, opts),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ConnState:         s.note,
		ErrorLog:          slog.NewLogLogger(opts.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// serve answers at a listener until shutdown: in https if there is a certificate.
func (s *httpServer) serve(listener net.Listener) error {
	if s.TLSConfig != nil {
		return s.ServeTLS(listener, "", "")
	}
	return s.Serve(listener)
}

// note keeps account of the connections that have asked nothing yet.
func (s *httpServer) note(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(s.silent, conn)
	case s.ending:
		conn.Close()
	default:
		s.silent[conn] = true
	}
}

// shutdown ends the server: requests that are under way may finish, but not for ever.
func (s *httpServer) shutdown() error {
	s.mu.Lock()
	s.ending = true
	for conn := range s.silent {
		conn.Close()
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	err := s.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.Close()
	}
	return err
}
