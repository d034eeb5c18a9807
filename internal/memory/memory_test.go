package memory_test

import (
	"testing"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/memory"
	"github.com/berthoci/berth/internal/registrytest"
)

func TestContract(t *testing.T) {
	registrytest.Run(t, func(*testing.T) berth.Registry { return memory.New() })
}
