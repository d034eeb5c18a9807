package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

// statuses gives each error code its HTTP status, as the specification's endpoint table and the
// reference registry have it.
var statuses = map[string]int{
	"BLOB_UNKNOWN":          http.StatusNotFound,
	"BLOB_UPLOAD_INVALID":   http.StatusBadRequest,
	"BLOB_UPLOAD_UNKNOWN":   http.StatusNotFound,
	"DIGEST_INVALID":        http.StatusBadRequest,
	"MANIFEST_BLOB_UNKNOWN": http.StatusBadRequest,
	"MANIFEST_INVALID":      http.StatusBadRequest,
	"MANIFEST_UNKNOWN":      http.StatusNotFound,
	"NAME_INVALID":          http.StatusBadRequest,
	"NAME_UNKNOWN":          http.StatusNotFound,
	"SIZE_INVALID":          http.StatusBadRequest,
	"TAG_INVALID":           http.StatusBadRequest,
	"UNAUTHORIZED":          http.StatusUnauthorized,
	"DENIED":                http.StatusForbidden,
	"UNSUPPORTED":           http.StatusMethodNotAllowed,
	"TOOMANYREQUESTS":       http.StatusTooManyRequests,
	"PRECONDITION_FAILED":   http.StatusPreconditionFailed,
	"RANGE_INVALID":         http.StatusRequestedRangeNotSatisfiable,
}

// statusError is an error that knows its status better than its code does.
type statusError struct {
	error
	status int
}

func (e *statusError) Unwrap() error { return e.error }

// withStatus gives an error a status of its own.
func withStatus(status int, err error) error { return &statusError{err, status} }

// errorBody is the specification's error body ("Error Codes").
type errorBody struct {
	Errors []errorEntry `json:"errors"`
}

type errorEntry struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// maxErrors bounds the entries of an error body: a manifest can lack thousands of blobs, and the answer is made
// without a turn in memory.
const maxErrors = 100

// fail answers with an error. Nothing may have been written before.
func (c *call) fail(err error) {
	if errors.Is(err, context.Canceled) && c.r.Context().Err() != nil {
		return // nobody is there to read it
	}
	status := statusOf(err)
	if status == http.StatusInternalServerError {
		c.opts.Logger.Error("request failed", "method", c.r.Method, "path", c.r.URL.Path, "err", err)
	}
	var body errorBody
	for i, e := range split(err) {
		if i == maxErrors {
			break
		}
		body.Errors = append(body.Errors, errorEntry{Code: codeOf(e), Message: e.Error()})
	}
	data, _ := json.Marshal(body)
	header := c.w.Header()
	if status == http.StatusTooManyRequests {
		header.Set("Retry-After", retryAfter)
	}
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(data)))
	c.w.WriteHeader(status)
	if c.r.Method != http.MethodHead {
		c.send(data) // nobody is left to tell of a failure
	}
}

func statusOf(err error) int {
	var own *statusError
	var method *ocirequest.MethodError
	switch {
	case errors.As(err, &own):
		return own.status
	case errors.As(err, &method):
		return http.StatusMethodNotAllowed
	case errors.Is(err, ocirequest.ErrNoRoute):
		return http.StatusNotFound
	}
	if status, ok := statuses[berth.Code(err)]; ok {
		return status
	}
	return http.StatusInternalServerError
}

func codeOf(err error) string {
	var method *ocirequest.MethodError
	if errors.Is(err, ocirequest.ErrNoRoute) || errors.As(err, &method) {
		return berth.Code(berth.ErrUnsupported)
	}
	if code := berth.Code(err); code != "" {
		return code
	}
	return "UNKNOWN"
}

// split returns the parts of a joined error that all have codes, or else the error itself. An error
// that wraps several with a text of its own is one error.
func split(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	parts := joined.Unwrap()
	texts := make([]string, len(parts))
	for i, part := range parts {
		texts[i] = part.Error()
		if berth.Code(part) == "" {
			return []error{err}
		}
	}
	if strings.Join(texts, "\n") != err.Error() {
		return []error{err}
	}
	return parts
}
