package remote_test

import (
	"net/http/httptest"
	"testing"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/registrytest"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/server"
)

// serve starts a registry over an empty layout and returns its host.
func serve(t *testing.T, opts *server.Options) string {
	t.Helper()
	layout, err := ocilayout.Open(t.Context(), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(server.New(layout, opts))
	t.Cleanup(func() {
		srv.Close()
		if err := layout.Close(); err != nil {
			t.Error(err)
		}
	})
	return srv.Listener.Addr().String()
}

func TestContract(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) berth.Registry {
		registry, err := remote.New(serve(t, nil), nil)
		if err != nil {
			t.Fatal(err)
		}
		return registry
	})
}
