package ocilayout

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// A body that is cut off is no body: what arrived stays, to be continued.
func TestABodyThatIsCutOffIsNotTakenForItsEnd(t *testing.T) {
	for _, size := range []int{0, 10, 5 << 20, 40 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			l := open(t, t.TempDir())
			repo, err := l.Repository("app/hello")
			if err != nil {
				t.Fatal(err)
			}
			up, err := repo.NewUpload(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			cut := io.MultiReader(strings.NewReader(strings.Repeat("x", size)), iotest.ErrReader(io.ErrUnexpectedEOF))
			if n, err := io.Copy(up, cut); n != int64(size) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("took %d bytes, %v", n, err)
			}
			if err := up.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := repo.ResumeUpload(t.Context(), up.ID())
			if err != nil || again.Size() != int64(size) {
				t.Fatalf("got %v, %v", again, err)
			}
			if err := again.Cancel(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
