package durable

import (
	"errors"
	"os"
)

// TryLock does nothing: a directory cannot be locked here.
//
// Errors: errors.ErrUnsupported.
func TryLock(*os.File) error { return errors.ErrUnsupported }
