package sdk

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestMayRepeat(t *testing.T) {
	cut, refused := io.ErrUnexpectedEOF, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for _, c := range []struct {
		method, condition string
		body              io.Reader
		failed            error
		want              bool
	}{
		{http.MethodGet, "", nil, cut, true},
		{http.MethodHead, "If-None-Match", nil, cut, true},
		{http.MethodPost, "", nil, cut, true},
		{http.MethodPut, "", strings.NewReader("again"), cut, true},
		{http.MethodPut, "", io.NopCloser(strings.NewReader("once")), cut, false},
		{http.MethodPut, "If-Match", strings.NewReader("again"), cut, false},
		{http.MethodPut, "If-None-Match", strings.NewReader("again"), cut, false},
		{http.MethodPut, "If-Match", strings.NewReader("again"), refused, true},
		{http.MethodPut, "If-Match", io.NopCloser(strings.NewReader("once")), refused, false},
		{http.MethodPatch, "", strings.NewReader("again"), cut, false},
		{http.MethodPatch, "", strings.NewReader("again"), refused, true},
		{http.MethodDelete, "", nil, cut, true},
		{http.MethodDelete, "If-Match", nil, cut, true},
	} {
		req, err := http.NewRequest(c.method, "http://127.0.0.1/v2/", c.body)
		if err != nil {
			t.Fatal(err)
		}
		if c.condition != "" {
			req.Header.Set(c.condition, `"sha256:x"`)
		}
		if got := mayRepeat(req, c.failed); got != c.want {
			t.Errorf("%s %s with body %T after %v: got %v", c.method, c.condition, c.body, c.failed, got)
		}
	}
}

func TestWhatWasToBeDeletedIsGone(t *testing.T) {
	for _, c := range []struct {
		method          string
		status, repeats int
		want            int
	}{
		{http.MethodDelete, 404, 1, 202}, {http.MethodDelete, 404, 0, 404}, {http.MethodDelete, 412, 1, 412}, {http.MethodGet, 404, 1, 404},
	} {
		resp := settled(&http.Request{Method: c.method}, &http.Response{StatusCode: c.status}, c.repeats)
		if resp.StatusCode != c.want {
			t.Errorf("%s, status %d, repeated %d times: got %d", c.method, c.status, c.repeats, resp.StatusCode)
		}
	}
}
