package berthtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk"
)

// maxIdle is how many connections to the registry are kept.
const maxIdle = 32

// front is where the clients under test come: it asks who they are, writes down what they want, disturbs it, and
// passes the rest on. It does not know what serves the registry, so all launchers look the same from outside.
type front struct {
	server    *httptest.Server
	backend   func() sdk.Endpoint // is asked for each request: what serves the layout may have been replaced
	proxy     httputil.ReverseProxy
	transport *http.Transport
	end       context.CancelFunc // of all requests

	gate   gate
	log    requestLog
	faults faults
}

func newFront(backend func() sdk.Endpoint) (*front, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &front{backend: backend, transport: &http.Transport{MaxIdleConnsPerHost: maxIdle, DisableCompression: true}}
	f.proxy = httputil.ReverseProxy{
		Rewrite:        f.rewrite,
		Transport:      f.transport,
		ModifyResponse: relocate,
		ErrorHandler:   unreachable,
		ErrorLog:       log.New(io.Discard, "", 0), // an answer that ends early is nothing to tell: tests want that
	}
	life, end := context.WithCancel(context.Background())
	f.end = end
	f.server = &httptest.Server{Listener: listener, Config: &http.Server{
		Handler:     f,
		BaseContext: func(net.Listener) context.Context { return life },
	}}
	f.server.Start()
	return f, nil
}

func (f *front) host() string { return f.server.Listener.Addr().String() }

// close cuts what is under way, and returns when no request is any more.
func (f *front) close() {
	f.end()
	f.server.CloseClientConnections()
	f.server.Close()
	f.transport.CloseIdleConnections()
}

// ServeHTTP is the way of a request: written down, slowed, failed, let in, passed on.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	entry := f.log.begin(r)
	effect := f.faults.of(entry.asked)
	if err := sleep(r.Context(), effect.delay); err != nil {
		panic(http.ErrAbortHandler)
	}
	pace := pace{r.Context(), effect.rate}
	r.Body = &slowBody{r.Body, pace}
	out := &answer{ResponseWriter: w, entry: entry, pace: pace, left: effect.after}
	f.answer(out, r, effect)
	if out.left == 0 { // what has no body is cut here
		panic(http.ErrAbortHandler)
	}
}

func (f *front) answer(w *answer, r *http.Request, effect effect) {
	switch {
	case effect.fails:
		if _, known := f.gate.admit(r); known {
			w.entry.authenticate()
		}
		fail(w, r, effect.status)
		return
	case r.URL.Path == tokenPath && f.gate.givesTokens():
		f.gate.serveToken(w, r)
		return
	}
	challenge, known := f.gate.admit(r)
	if challenge != "" {
		w.Header().Set("WWW-Authenticate", challenge)
		refuse(w, r, http.StatusUnauthorized, berth.ErrUnauthorized)
		return
	}
	if known {
		w.entry.authenticate()
	}
	f.proxy.ServeHTTP(w, r)
}

// rewrite addresses a request to the registry, as one of the test's own.
func (f *front) rewrite(r *httputil.ProxyRequest) {
	to := f.backend()
	r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", to.Host, ""
	r.Out.URL.RawQuery = r.In.URL.RawQuery // also where it does not parse: the registry shall say so
	r.Out.Header.Del("Authorization")
	if to.Password != "" {
		r.Out.SetBasicAuth(to.Username, to.Password)
	}
}

// relocate keeps clients here that the registry would send to its own address.
func relocate(resp *http.Response) error {
	location, err := url.Parse(resp.Header.Get("Location"))
	if err == nil && location.Host == resp.Request.URL.Host {
		location.Scheme, location.Host = "", ""
		resp.Header.Set("Location", location.String())
	}
	return nil
}

// unreachable answers where the registry does not.
func unreachable(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	refuse(w, r, http.StatusBadGateway, fmt.Errorf("berthtest: the registry does not answer: %w", err))
}

// refuse answers with the specification's error body ("Error Codes"). The body of the request is read before: a client
// that is still sending might miss the answer.
func refuse(w http.ResponseWriter, r *http.Request, status int, err error) {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	code := berth.Code(err)
	if code == "" {
		code = "UNKNOWN"
	}
	if r.Body != nil { // the proxy takes away an empty one
		io.Copy(io.Discard, r.Body)
	}
	answerJSON(w, status, map[string][]entry{"errors": {{code, err.Error()}}})
}

func answerJSON(w http.ResponseWriter, status int, content any) {
	data, _ := json.Marshal(content) // maps and strings alone
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(data)
}
