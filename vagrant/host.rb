# What a machine must have before it can be one for the virtual machine. Decided from what it says of itself, so that
# every machine can be put into a test (tests/unit/test_vagrant.py).

module Host
  # MiB beside the virtual machine's own memory: for the program that emulates it, and for this machine itself.
  BESIDE = 512
  # MiB on the disk that the virtual machine's disk is on: the default box, unpacked twice, and what is installed in it.
  DISK = 4096

  ARCHITECTURES = { "x86_64" => "amd64", "aarch64" => "arm64" }.freeze

  # Everything that is missing, each in one sentence that says what to do. What is not known (nil) is not held against
  # anybody.
  #
  # memory      MiB the virtual machine is to have
  # available   MiB of memory there are
  # disks       {folder => MiB free}
  # processor   uname -m
  # box         the architecture that the box's metadata.json names
  def self.lacking(memory:, available:, disks:, processor:, box:)
    found = []
    if available && available < memory + BESIDE
      found << "the machine is to have #{memory} MiB of memory and needs #{BESIDE} beside it, and there are #{available}: " \
               "end something, or SPLITBRAIN_MEMORY=1024"
    end
    disks.each do |folder, free|
      found << "#{folder} has #{free} MiB free on its disk and the machine takes #{DISK}: make room" if free && free < DISK
    end
    here = ARCHITECTURES.fetch(processor, processor)
    if box && here && box != here
      found << "the box is one for #{box}, and this machine is #{here}: choose another with SPLITBRAIN_BOX"
    end
    found
  end

  # The memory that programs can have without swapping, in MiB (proc(5)); nil where there is no such file.
  def self.available(meminfo)
    meminfo && meminfo[/^MemAvailable:\s+(\d+) kB/, 1]&.to_i&./(1024)
  end

  # What is free on the disk a folder is on, or will be, in MiB.
  def self.free(folder)
    folder = File.dirname(folder) until File.exist?(folder)
    said = IO.popen(["df", "-Pm", folder], err: File::NULL, &:read)
    said.lines.last&.split&.fetch(3, nil)&.to_i
  rescue SystemCallError
    nil
  end

  # The driver for libvirt: what was asked for, or what there is.
  def self.driver(asked, kvm)
    return asked || (kvm ? "kvm" : "qemu") unless asked == "kvm" && !kvm
    raise ArgumentError, "SPLITBRAIN_DRIVER=kvm, and /dev/kvm may not be opened: join its group (`sudo adduser $USER kvm`, " \
                         "then log in again), or let SPLITBRAIN_DRIVER=qemu emulate the processor"
  end
end
