//go:build unix

package source

import (
	"context"
	"os"
	"syscall"
	"time"
)

// openPipe waits for whoever is to write to a pipe, until the context ends: a writer who comes and goes ends the wait.
func openPipe(ctx context.Context, name string) (*os.File, error) {
	opened := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		for {
			if writer, err := os.OpenFile(name, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
				writer.Close()
			}
			select {
			case <-opened:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	defer stop()
	defer close(opened)
	return os.Open(name)
}
