package ggcr

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/berthoci/berth"
)

// statuses are what a registry answers with where it has the error: programs that use go-containerregistry
// branch on these.
var statuses = []struct {
	err    error
	status int
}{
	{berth.ErrBlobUnknown, http.StatusNotFound},
	{berth.ErrManifestUnknown, http.StatusNotFound},
	{berth.ErrNameUnknown, http.StatusNotFound},
	{berth.ErrUnauthorized, http.StatusUnauthorized},
	{berth.ErrDenied, http.StatusForbidden},
	{berth.ErrTooManyRequests, http.StatusTooManyRequests},
}

// refusal is an error of berth that is one of go-containerregistry, too.
type refusal struct {
	error
	answer *transport.Error
}

func (r refusal) Unwrap() []error { return []error{r.error, r.answer} }

// outward makes an error of berth fit for programs that use go-containerregistry.
func outward(err error) error {
	for _, known := range statuses {
		if !errors.Is(err, known.err) {
			continue
		}
		said := transport.Diagnostic{Code: transport.ErrorCode(berth.Code(known.err)), Message: err.Error()}
		return refusal{err, &transport.Error{StatusCode: known.status, Errors: []transport.Diagnostic{said}}}
	}
	return err
}

// inward makes an error that says that something is missing match absent, which is one of berth's.
func inward(err, absent error) error {
	var answer *transport.Error
	missing := errors.Is(err, fs.ErrNotExist) || errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
	if !missing || errors.Is(err, absent) {
		return err
	}
	return fmt.Errorf("%w: %w", absent, err)
}

// isMissing reports whether berth has no such content.
func isMissing(err error) bool {
	return errors.Is(err, berth.ErrBlobUnknown) || errors.Is(err, berth.ErrManifestUnknown) || errors.Is(err, berth.ErrNameUnknown)
}
