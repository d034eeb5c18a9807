package remote

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/berthoci/berth/internal/ocirequest"
	"github.com/berthoci/berth/sdk/remote/auth"
)

// NetworkError is a request that had no answer: another address of the same registry may be worth a try, as it is not
// after an [*Error] or an [*auth.Error].
type NetworkError struct {
	// Host that was asked.
	Host string
	// Method and URL of the request; the URL without its query.
	Method, URL string
	// Reason says in a few words what is wrong, and Advice what to do next. Either may be empty.
	Reason, Advice string
	// Err is the error of the connection.
	Err error
}

// Error names the host once, and what to do next.
func (e *NetworkError) Error() string {
	reason := e.Reason
	if reason == "" {
		reason = e.Err.Error()
	}
	text := fmt.Sprintf("registry %s cannot be reached: %s", e.Host, reason)
	if e.Advice != "" {
		text += "; " + e.Advice
	}
	return text
}

// Unwrap returns Err.
func (e *NetworkError) Unwrap() error { return e.Err }

// transportError says what did not come about, without the query that a url.Error quotes.
func (r *Registry) transportError(ctx context.Context, req ocirequest.Request, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var refused *auth.Error
	switch {
	case r.name != "":
		return fmt.Errorf("%s: %w", r.name, err)
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", r.host, ctx.Err())
	case errors.As(err, &refused) && refused.Status == http.StatusUnauthorized:
		return fmt.Errorf("%w; %s", err, r.adviseLogin(ctx))
	case errors.As(err, &refused):
		return err
	case !isNetwork(err):
		return fmt.Errorf("%s %s: %w", req.Method(), plainURL(req.URL(r.base)), err)
	}
	e := &NetworkError{Host: r.base.Host, Method: req.Method(), URL: plainURL(req.URL(r.base)), Err: err}
	e.Reason, e.Advice = explain(err, r.base.Host, r.certDir)
	return e
}

// isNetwork tells what the network has done from what was found before anything was sent.
func isNetwork(err error) bool {
	var network net.Error
	var source *sourceError
	if errors.As(err, &source) {
		return false
	}
	return errors.As(err, &network) || !passing(err) || errors.Is(err, errSilent) || isBroken(err)
}

// explain says what an error of a connection means to who has named the host. Its certificates are looked for in certDir.
func explain(err error, host, certDir string) (reason, advice string) {
	var unknown *net.DNSError
	var untrusted *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown) && unknown.IsNotFound:
		return "its name is not known here", "check how it is spelt"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there", "start it, or check the port"
	case errors.As(err, &plain), speaksPlain(err):
		return "it does not speak https", "if the network in between is trusted, allow http by Options.PlainHTTP or --plain-http " + host
	case errors.As(err, &untrusted):
		return untrusted.Err.Error(), "put the certificate of its authority into " + filepath.Join(certDir, onDisk(strings.ToLower(host)), "ca.crt")
	case errors.Is(err, errSilent), isTimeout(err):
		return "it does not answer", "check the address, and what is between"
	}
	return "", ""
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

// isBroken reports whether a connection has ended before it should.
func isBroken(err error) bool {
	for _, sign := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE} {
		if errors.Is(err, sign) {
			return true
		}
	}
	var stream streamError
	return errors.As(err, &stream) || endsHTTP2(err)
}

// streamError has the fields of net/http's error of a stream that was reset (RFC 9113, 5.4.2), which fills it in.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string {
	return fmt.Sprintf("stream %d was reset with code %d", e.StreamID, e.Code)
}

// endsHTTP2 reports whether a connection of HTTP/2 has ended. There are no values for these errors.
func endsHTTP2(err error) bool {
	text := err.Error()
	for _, sign := range []string{"http2: client connection", "http2: server sent GOAWAY", "http2: Transport", "http: server closed idle connection"} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}
