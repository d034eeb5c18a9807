//go:build !windows

package host

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/berthoci/berth/internal/control"
	"github.com/berthoci/berth/plugin"
)

// A plugin that is killed when others can call it already, and the host that started it cannot yet, may be started anew.
func TestAPluginThatIsKilledWhileItStarts(t *testing.T) {
	layout, binary := t.TempDir(), filepath.Join(t.TempDir(), "berth")
	if err := os.Mkdir(filepath.Join(layout, control.Dir), 0o700); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\necho \"{\\\"network\\\":\\\"unix\\\",\\\"pid\\\":$$}\" > '%s'\nkill -9 $$\n", filepath.Join(layout, control.EndpointFile))
	if err := os.WriteFile(binary, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if _, err := Binary(binary).Launch(t.Context(), Start{Config: plugin.Config{Layout: layout}, Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, plugin.ErrGone) {
			t.Fatalf("got %v", err)
		}
	}
}
