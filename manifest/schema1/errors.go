package schema1

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/berthoci/berth"
)

// SignatureError says which signature of a manifest is malformed or wrong. It matches
// berth.ErrManifestInvalid.
type SignatureError struct {
	// Index of the signature in the manifest, from 0.
	Index int
	// Reason is what is wrong, in one line.
	Reason string
}

// Error returns the reason with the index.
func (e *SignatureError) Error() string {
	return fmt.Sprintf("%v: signature %d: %s", berth.ErrManifestInvalid, e.Index, e.Reason)
}

// Unwrap returns berth.ErrManifestInvalid.
func (e *SignatureError) Unwrap() error { return berth.ErrManifestInvalid }

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", berth.ErrManifestInvalid, fmt.Sprintf(format, args...))
}

// joined is errors.Join, but a single error stays itself.
func joined(errs ...error) error {
	var found []error
	for _, err := range errs {
		if err != nil {
			found = append(found, err)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return errors.Join(found...)
}

// describe says what is wrong with JSON without quoting it.
func describe(err error) string {
	switch e := err.(type) {
	case *json.SyntaxError:
		return fmt.Sprintf("JSON syntax error at byte %d", e.Offset)
	case *json.UnmarshalTypeError:
		return fmt.Sprintf("it cannot be a JSON %.20s", e.Value)
	}
	return fmt.Sprintf("%.100s", err)
}
