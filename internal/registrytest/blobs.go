package registrytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

var blobCases = []testCase{
	{"a blob comes out as it went in", func(s *suite) {
		for _, size := range []int{0, 1, 3 << 20} {
			content := random(size)
			desc := s.upload(s.repo, content)
			equal(s, "digest", desc.Digest, digest.FromBytes(content))
			equal(s, "size", desc.Size, int64(size))
			stat, err := s.repo.StatBlob(s.ctx, desc.Digest)
			s.must(err)
			equal(s, "stat", stat.Size, int64(size))
			if !bytes.Equal(s.read(s.repo, desc.Digest), content) {
				s.Errorf("a blob of %d bytes came out changed", size)
			}
		}
	}},
	{"sha512", func(s *suite) {
		content := random(1000)
		desc := s.uploadAs(s.repo, digest.SHA512, content)
		equal(s, "digest", desc.Digest, digest.SHA512.FromBytes(content))
		if !bytes.Equal(s.read(s.repo, desc.Digest), content) {
			s.Error("it came out changed")
		}
	}},
	{"an open blob seeks", func(s *suite) {
		content := random(10_000)
		blob, err := s.repo.OpenBlob(s.ctx, s.upload(s.repo, content).Digest)
		s.must(err)
		defer blob.Close()
		for _, offset := range []int64{5000, 0, 9990} {
			_, err = blob.Seek(offset, io.SeekStart)
			s.must(err)
			part := make([]byte, 10)
			_, err = io.ReadFull(blob, part)
			s.must(err)
			if !bytes.Equal(part, content[offset:offset+10]) {
				s.Errorf("other bytes at %d", offset)
			}
		}
		end, err := blob.Seek(0, io.SeekEnd)
		s.must(err)
		equal(s, "end", end, int64(len(content)))
	}},
	{"an absent blob is unknown", func(s *suite) {
		_, err := s.repo.StatBlob(s.ctx, absent("blob"))
		s.wantErr(err, berth.ErrBlobUnknown)
		_, err = s.repo.OpenBlob(s.ctx, absent("blob"))
		s.wantErr(err, berth.ErrBlobUnknown)
		s.wantErr(s.repo.DeleteBlob(s.ctx, absent("blob")), berth.ErrBlobUnknown)
	}},
	{"a digest that is none is invalid", func(s *suite) {
		_, err := s.repo.StatBlob(s.ctx, "sha256:short")
		s.wantErr(err, berth.ErrDigestInvalid)
		_, err = s.repo.OpenBlob(s.ctx, "../../etc/passwd")
		s.wantErr(err, berth.ErrDigestInvalid)
	}},
	{"a name that is none is invalid", func(s *suite) {
		for _, name := range []string{"", "UPPER", "a//b", "../a", "a b", "-a"} {
			_, err := s.reg.Repository(name)
			s.wantErr(err, berth.ErrNameInvalid)
		}
	}},
	{"a repository does not see another's blobs", func(s *suite) {
		desc := s.upload(s.repo, []byte("mine"))
		other := s.repository("app/other")
		_, err := other.StatBlob(s.ctx, desc.Digest)
		s.wantErr(err, berth.ErrBlobUnknown)
		s.upload(other, []byte("mine"))
		s.must(other.DeleteBlob(s.ctx, desc.Digest))
		_, err = s.repo.StatBlob(s.ctx, desc.Digest)
		s.must(err)
	}},
	{"a deleted blob is gone, and can come back", func(s *suite) {
		desc := s.upload(s.repo, []byte("here"))
		s.must(s.repo.DeleteBlob(s.ctx, desc.Digest))
		_, err := s.repo.StatBlob(s.ctx, desc.Digest)
		s.wantErr(err, berth.ErrBlobUnknown)
		s.upload(s.repo, []byte("here"))
		equal(s, "content", string(s.read(s.repo, desc.Digest)), "here")
	}},
	{"a mount needs no upload", func(s *suite) { s.mounts("app/hello") }},
	{"a mount from any repository needs no upload", func(s *suite) {
		s.needs(mountsFromAny)
		s.mounts("")
	}},
	{"a mount that does not work is an upload", func(s *suite) {
		for _, from := range []string{"app/absent", ""} {
			up, err := s.repo.NewUpload(s.ctx, &berth.UploadOptions{Mount: absent("mount"), From: from})
			s.must(err)
			s.must(up.Cancel(s.ctx))
		}
		_, err := s.repo.StatBlob(s.ctx, absent("mount"))
		s.wantErr(err, berth.ErrBlobUnknown)
	}},
	{"a mount from where the caller may not pull is an upload", func(s *suite) {
		desc := s.upload(s.repo, []byte("secret"))
		may := func(name string) bool { return name == "app/other" }
		for _, from := range []string{"app/hello", ""} {
			up, err := s.repository("into/x").NewUpload(s.ctx, &berth.UploadOptions{Mount: desc.Digest, From: from, MayMount: may})
			s.must(err)
			s.must(up.Cancel(s.ctx))
		}
		_, err := s.repository("into/x").StatBlob(s.ctx, desc.Digest)
		s.wantErr(err, berth.ErrBlobUnknown)
		s.upload(s.repository("app/other"), []byte("secret"))
		_, err = s.repository("into/x").NewUpload(s.ctx, &berth.UploadOptions{Mount: desc.Digest, From: "app/other", MayMount: may})
		s.wantErr(err, berth.ErrMounted)
	}},
	{"many push the same blob at once", func(s *suite) {
		content := random(100_000)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { s.upload(s.repo, content) })
		}
		wg.Wait()
		if !bytes.Equal(s.read(s.repo, digest.FromBytes(content)), content) {
			s.Error("it came out changed")
		}
	}},
	{"a cancelled context ends the call", func(s *suite) {
		ctx, cancel := context.WithCancel(s.ctx)
		cancel()
		_, err := collect(s.repo.Tags(ctx, ""))
		if err == nil {
			s.Error("tags were listed")
		}
	}},
}

var uploadCases = []testCase{
	{"a digest that does not match stores nothing", func(s *suite) {
		up, err := s.repo.NewUpload(s.ctx, nil)
		s.must(err)
		_, err = up.Write([]byte("these bytes"))
		s.must(err)
		_, err = up.Commit(s.ctx, absent("others"))
		s.wantErr(err, berth.ErrDigestInvalid)
		_, err = s.repo.StatBlob(s.ctx, absent("others"))
		s.wantErr(err, berth.ErrBlobUnknown)
		_, err = s.repo.StatBlob(s.ctx, digest.FromString("these bytes"))
		s.wantErr(err, berth.ErrBlobUnknown)
	}},
	{"an upload is resumed where it was left", func(s *suite) {
		content := random(300_000)
		up, err := s.repo.NewUpload(s.ctx, nil)
		s.must(err)
		id := up.ID()
		for i := range 3 {
			if i > 0 {
				up, err = s.repo.ResumeUpload(s.ctx, id)
				s.must(err)
				equal(s, "size", up.Size(), int64(i*100_000))
			}
			_, err = up.Write(content[i*100_000 : (i+1)*100_000])
			s.must(err)
			if i < 2 {
				s.must(up.Close())
			}
		}
		_, err = up.Commit(s.ctx, digest.FromBytes(content))
		s.must(err)
		if !bytes.Equal(s.read(s.repo, digest.FromBytes(content)), content) {
			s.Error("it came out changed")
		}
	}},
	{"an upload belongs to its repository", func(s *suite) {
		up, err := s.repo.NewUpload(s.ctx, nil)
		s.must(err)
		s.must(up.Close())
		_, err = s.repository("app/other").ResumeUpload(s.ctx, up.ID())
		s.wantErr(err, berth.ErrUploadUnknown)
	}},
	{"an upload that is over is unknown", func(s *suite) {
		committed, err := s.repo.NewUpload(s.ctx, nil)
		s.must(err)
		_, err = committed.Commit(s.ctx, digest.FromBytes(nil))
		s.must(err)
		cancelled, err := s.repo.NewUpload(s.ctx, nil)
		s.must(err)
		s.must(cancelled.Cancel(s.ctx))
		for _, id := range []string{committed.ID(), cancelled.ID(), "never-was", "../../index.json"} {
			_, err := s.repo.ResumeUpload(s.ctx, id)
			s.wantErr(err, berth.ErrUploadUnknown)
		}
	}},
	{"an unannounced algorithm is found at the end", func(s *suite) {
		up, err := s.repo.NewUpload(s.ctx, nil)
		s.must(err)
		_, err = up.Write([]byte("wide"))
		s.must(err)
		_, err = up.Commit(s.ctx, digest.SHA512.FromString("wide"))
		s.must(err)
		equal(s, "content", string(s.read(s.repo, digest.SHA512.FromString("wide"))), "wide")
	}},
	{"uploads do not disturb each other", func(s *suite) {
		errs := make(chan error, 16)
		for i := range 16 {
			go func() { errs <- s.uploadInSteps([]byte(fmt.Sprint("upload ", i))) }()
		}
		for range 16 {
			s.must(<-errs)
		}
		for i := range 16 {
			want := fmt.Sprint("upload ", i)
			equal(s, "content", string(s.read(s.repo, digest.FromString(want))), want)
		}
	}},
}

// mounts makes sure that a blob comes into another repository without an upload.
func (s *suite) mounts(from string) {
	s.Helper()
	desc := s.upload(s.repo, []byte("to be mounted"))
	into := s.repository("into/x")
	_, err := into.NewUpload(s.ctx, &berth.UploadOptions{Mount: desc.Digest, From: from})
	s.wantErr(err, berth.ErrMounted)
	equal(s, "content", string(s.read(into, desc.Digest)), "to be mounted")
}

// uploadInSteps writes byte by byte, resting between the first and the rest.
func (s *suite) uploadInSteps(content []byte) error {
	up, err := s.repo.NewUpload(s.ctx, nil)
	if err != nil {
		return err
	}
	_, err1 := up.Write(content[:1])
	err2 := up.Close()
	up, err = s.repo.ResumeUpload(s.ctx, up.ID())
	if err := errors.Join(err, err1, err2); err != nil {
		return err
	}
	for _, b := range content[1:] {
		if _, err := up.Write([]byte{b}); err != nil {
			return err
		}
	}
	_, err = up.Commit(s.ctx, digest.FromBytes(content))
	return err
}
