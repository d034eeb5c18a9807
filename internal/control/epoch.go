package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// EpochFile tells how the index was left. It is JSON; who owns the layout writes it durably.
const EpochFile = Dir + "/epoch"

// BootVariable is an environment variable that stands in for the system's boot id, for tests.
const BootVariable = "BERTH_BOOT_ID"

// maxEpoch bounds what is read of an epoch file.
const maxEpoch = 64 << 10

// Place is where a layout lies, as far as it matters to what was written and not flushed: it is
// still in memory if the same directory of the same disk is found under the same boot.
type Place struct {
	// Boot is the id of the running system's start. Empty where the system has none to tell.
	Boot string `json:"boot"`
	// Device and Inode are the layout directory's.
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// Here is the place of a layout now.
func Here(layout *os.Root) (Place, error) {
	info, err := layout.Stat(".")
	if err != nil {
		return Place{}, err
	}
	p := Place{Boot: os.Getenv(BootVariable)}
	if p.Boot == "" {
		p.Boot = bootID()
	}
	p.Device, p.Inode = identity(info)
	return p, nil
}

// Same reports whether what was written at p and not flushed is still there at q.
func (p Place) Same(q Place) bool { return p == q && p.Boot != "" }

// Epoch is how a layout's index was left.
type Epoch struct {
	Place
	// Mode is the durability with which it was written.
	Mode string `json:"mode"`
	// Clean tells that everything was flushed and nothing was written since.
	Clean bool `json:"clean"`
	// Damaged tells that the index was found broken while it was in use.
	Damaged bool `json:"damaged,omitempty"`
	// Closed is when a clean layout was closed.
	Closed time.Time `json:"closed,omitzero"`
}

// ReadEpoch reads a layout's epoch. One that is missing or garbled is the zero Epoch: nothing is
// known then.
func ReadEpoch(layout *os.Root) (Epoch, error) {
	var e Epoch
	f, err := layout.Open(EpochFile)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return e, err
	}
	defer f.Close()
	data := make([]byte, maxEpoch)
	n, _ := f.ReadAt(data, 0)
	if json.Unmarshal(data[:n], &e) != nil {
		return Epoch{}, nil
	}
	return e, nil
}

// Encode is the file's content.
func (e Epoch) Encode() ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", EpochFile, err)
	}
	return append(data, '\n'), nil
}
