//go:build !linux && !darwin

package control

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// Listener would take calls at a layout's control socket, which this system does not have.
type Listener struct{ net.Listener }

// Listen fails with errors.ErrUnsupported: who calls cannot be told here.
func Listen(layout string) (*Listener, error) {
	return nil, fmt.Errorf("control socket of %s: %w", layout, errors.ErrUnsupported)
}

// Dial fails with ErrNotRunning.
func Dial(_ context.Context, layout string) (net.Conn, error) {
	return nil, fmt.Errorf("layout %s: %w", layout, ErrNotRunning)
}
