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
	// maxHeader bounds the head of a request, in bytes. Those of clients with tokens have a few thousand.
	maxHeader = 64 << 10
)

// httpServer is an http.Server that ends at once when no request is under way. The standard one waits
// five seconds for connections that have asked nothing yet, and clients open such in reserve.
type httpServer struct {
	std   http.Server
	crowd *crowd
}

func newHTTPServer(registry berth.Registry, opts *server.Options) *httpServer {
	s := &httpServer{crowd: newCrowd(crowdLimits{maxConns, settled, headerTimeout, idleTimeout, writeTimeout})}
	s.std = http.Server{
		Handler:        server.New(registry, opts),
		MaxHeaderBytes: maxHeader,
		ConnState:      s.crowd.note,
		ErrorLog:       slog.NewLogLogger(opts.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// serve answers at a listener until shutdown: in https if there is a certificate.
func (s *httpServer) serve(listener net.Listener) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	done := make(chan struct{})
	defer close(done)
	watching.Go(func() { s.crowd.watch(done) })
	bounded := &crowdedListener{listener, s.crowd, s.std.TLSConfig == nil}
	if s.std.TLSConfig != nil {
		return s.std.ServeTLS(bounded, "", "")
	}
	return s.std.Serve(bounded)
}

// shutdown ends the server: requests that are under way may finish, but not for ever.
func (s *httpServer) shutdown() error {
	s.crowd.end()
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	err := s.std.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.std.Close()
	}
	return err
}
