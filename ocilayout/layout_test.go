package ocilayout

import (
	"testing"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/registrytest"
)

func TestContract(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) berth.Registry { return open(t, t.TempDir()) })
}

func open(t *testing.T, dir string) *Layout {
	t.Helper()
	l, err := Open(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}
