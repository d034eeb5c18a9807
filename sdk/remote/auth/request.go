package auth

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"github.com/berthoci/berth/internal/retry"
)

// maxHeld bounds what is read of an answer that will probably be dropped.
const maxHeld = 64 << 10

// isForeign reports whether a request must go without authorisation: its context says so, or a
// redirect on the way to it led to another origin. Each hop's Response is the redirect that caused
// it, so the whole way can be followed back.
func isForeign(req *http.Request) bool {
	if req.Context().Value(withoutAuthKey{}) != nil {
		return true
	}
	for hop := req; hop.Response != nil && hop.Response.Request != nil; hop = hop.Response.Request {
		if !sameOrigin(hop.Response.Request.URL, req.URL) {
			return true
		}
	}
	return false
}

// send sends a copy of req, under ctx and with that Authorization header, or with none.
func (t *Transport) send(ctx context.Context, req *http.Request, authorization string) (*http.Response, error) {
	out := req.Clone(ctx)
	if authorization == "" {
		out.Header.Del("Authorization")
	} else {
		out.Header.Set("Authorization", authorization)
	}
	return t.transmit(req, out)
}

// pass sends a copy of req with the Authorization header that it came with.
func (t *Transport) pass(req *http.Request) (*http.Response, error) {
	return t.transmit(req, req.Clone(req.Context()))
}

// transmit sends out in the place of req. The response is said to be to req: its caller looks
// there for what it sent, http.Client looks there for the way of a redirect, and neither needs to
// see a token.
func (t *Transport) transmit(req, out *http.Request) (*http.Response, error) {
	t.identify(out)
	resp, err := t.base().RoundTrip(out)
	if err != nil {
		return nil, err
	}
	if authorization := out.Header.Get("Authorization"); authorization != "" {
		censor(resp, authorization)
	}
	resp.Request = req
	return resp, nil
}

// resend sends req another time, in the place of the exchange that resp ended.
func (t *Transport) resend(req *http.Request, resp *http.Response, authorization string) (*http.Response, error) {
	again := req
	if retry.HasBody(req) {
		body, err := req.GetBody()
		if err != nil {
			// The answer that is there tells the caller more than why there is no second one.
			return resp, nil
		}
		again = req.WithContext(req.Context())
		again.Body = body
	}
	resp.Body.Close()
	resp, err := t.send(again.Context(), again, authorization)
	if err != nil {
		return nil, err
	}
	resp.Request = req
	return resp, nil
}

// identify sets the User-Agent where the request does not have one. An empty one is the caller's
// wish to send none.
func (t *Transport) identify(req *http.Request) {
	if _, ok := req.Header["User-Agent"]; !ok && t.UserAgent != "" {
		req.Header.Set("User-Agent", t.UserAgent)
	}
}

// settle frees the connection that resp came on while a token is got, which may need it: the body
// is read into memory, unless it is long. It can still be read as before, to its end or its error.
func settle(resp *http.Response) {
	held, err := io.ReadAll(io.LimitReader(resp.Body, maxHeld))
	if err == nil && len(held) < maxHeld {
		resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(held))
		return
	}
	rest := resp.Body
	if err != nil {
		rest = failing{Closer: rest, err: err}
	}
	resp.Body = joined{Reader: io.MultiReader(bytes.NewReader(held), rest), Closer: rest}
}

// joined reads from one and closes another.
type joined struct {
	io.Reader
	io.Closer
}

// failing is the end of a body that broke off.
type failing struct {
	io.Closer
	err error
}

func (f failing) Read([]byte) (int, error) { return 0, f.err }
