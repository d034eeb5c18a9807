// Package smallfile reads files that are somebody else's, and may be anything.
package smallfile

import (
	"fmt"
	"io"
	"os"
)

// Read reads a file of at most so many bytes.
//
// Errors: those of os.Open; one that names the file where it is larger.
func Read(path string, most int) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, int64(most)+1))
	if len(raw) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, most)
	}
	return raw, err
}
