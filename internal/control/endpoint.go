package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// EndpointFile tells where the owner of a layout takes calls. It is JSON, and there while the owner takes
// any: one that was left behind leads nowhere. Its mode is 0600: it may hold a secret.
//
//	{"network":"unix","pid":4711}
//	{"network":"tcp","address":"127.0.0.1:40123","secret":"…","pid":4711}
const EndpointFile = Dir + "/" + endpointName

const (
	endpointName = "endpoint.json"
	// maxEndpoint bounds what is read of the file, in bytes.
	maxEndpoint = 4096

	unixNetwork = "unix" // the socket is at SocketFile
	tcpNetwork  = "tcp"
)

// endpoint is the file's content.
type endpoint struct {
	Network string `json:"network"`
	Address string `json:"address,omitempty"`
	// Secret is what both ends of a connection over TCP prove to each other that they know.
	Secret string `json:"secret,omitempty"`
	// PID is the owner's, for people.
	PID int `json:"pid"`
}

// write puts the file in its place at once: who reads it sees all of it, or none.
func (e endpoint) write(dir *os.Root) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	const unfinished = endpointName + ".new"
	if err := dir.WriteFile(unfinished, append(data, '\n'), 0o600); err != nil {
		return errors.Join(err, remove(dir, unfinished), remove(dir, endpointName))
	}
	if err := dir.Rename(unfinished, endpointName); err == nil {
		return nil
	}
	if err := dir.RemoveAll(endpointName); err != nil { // a directory, whoever made it
		return err
	}
	return dir.Rename(unfinished, endpointName)
}

// Serves reports whether a process takes calls for a layout, as far as the layout's endpoint file tells.
func Serves(layout string, pid int) bool {
	dir, err := os.OpenRoot(filepath.Join(layout, Dir))
	if err != nil {
		return false
	}
	defer dir.Close()
	e, err := readEndpoint(dir)
	return err == nil && e.PID == pid
}

// readEndpoint reads the file.
//
// Errors: ErrNotRunning where there is none, or no endpoint in it.
func readEndpoint(dir *os.Root) (endpoint, error) {
	info, err := dir.Lstat(endpointName) // to open something else than a file might take for ever
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return endpoint{}, ErrNotRunning
	}
	if err != nil {
		return endpoint{}, err
	}
	f, err := dir.Open(endpointName)
	if err != nil {
		return endpoint{}, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !trusted(owner(info)) {
		return endpoint{}, fmt.Errorf("%w: %s is not this user's", ErrNotRunning, filepath.Join(dir.Name(), endpointName))
	}
	var e endpoint
	data, err := io.ReadAll(io.LimitReader(f, maxEndpoint))
	if err != nil || json.Unmarshal(data, &e) != nil {
		return endpoint{}, ErrNotRunning
	}
	return e, nil
}
